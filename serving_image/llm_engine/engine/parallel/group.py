"""Where ranks meet and add up: gloo between CPUs, NCCL between GPUs. No state of torch's own."""

from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined] # torch's stubs miss it

from llm_engine.contract.tensor_parallel import Rank
from llm_engine.model.rank_part import SumRanks

LOOPBACK: Final = "127.0.0.1"
MEET_WITHIN: Final = timedelta(seconds=120)
"""All processes import torch and meet within this, before they load."""
ADD_WITHIN: Final = timedelta(seconds=300)
"""A rank that does not add its part within this is lost."""


def make_store(ranks: int) -> TCPStore:
    """Open the place where the ranks find each other, on a free port of this machine."""
    return TCPStore(LOOPBACK, 0, ranks, is_master=True, timeout=MEET_WITHIN, wait_for_workers=False)


def find_store(port: int, ranks: int) -> TCPStore:
    """Return the store that the first rank has opened."""
    return TCPStore(LOOPBACK, port, ranks, is_master=False, timeout=MEET_WITHIN)


def meet(store: TCPStore, rank: Rank, device: torch.device) -> SumRanks:
    """Wait until every rank is there; return how they add up."""
    group = (_nccl if device.type == "cuda" else _gloo)(store, rank)

    def sum_ranks(part: Tensor) -> Tensor:
        group.allreduce([part]).wait()
        return part

    return sum_ranks


def _gloo(store: TCPStore, rank: Rank) -> Any:
    options: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = ADD_WITHIN
    # The machine's name may resolve to nothing; ranks are processes of one machine.
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=LOOPBACK)]
    return dist.ProcessGroupGloo(store, rank.index, rank.count, options)


def _nccl(store: TCPStore, rank: Rank) -> Any:
    torch.cuda.set_device(rank.index)
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = ADD_WITHIN
    return dist.ProcessGroupNCCL(store, rank.index, rank.count, options)
