"""Load what one process computes: a whole model, or a rank's part of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llm_engine.attention.cache import KVCache
from llm_engine.attention.choice import make_attention
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.memory_plan import LARGEST_STEPS
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.tensor_parallel import Rank
from llm_engine.engine.runner import Runner
from llm_engine.model.assembly import load_decoder
from llm_engine.model.rank_part import RankPart, SumRanks
from llm_engine.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from llm_engine.attention.backend import AttentionBackend
    from llm_engine.model.decoder import Decoder

MakeRunner = Callable[["Decoder", KVCache, "AttentionBackend", int], Runner]


@dataclass(frozen=True)
class PartTask:
    """What a process must know to load its part; all ranks get the same, but for `rank`.

    device  without an index: rank N computes on the Nth GPU
    blocks  of the KV cache, as many on every rank
    """

    path: Path
    quantization: Quantization
    attention: AttentionName
    device: str
    dtype: str
    context_tokens: int
    blocks: int
    block_tokens: int
    threads: int
    rank: Rank

    @property
    def torch_device(self) -> torch.device:
        """Return the device of this rank."""
        if self.device == "cuda" and self.rank.count > 1:
            return torch.device("cuda", self.rank.index)
        return torch.device(self.device)


def load_part(
    checkpoint: Checkpoint,
    task: PartTask,
    sum_ranks: SumRanks | None = None,
    make_runner: MakeRunner = Runner,
) -> Runner:
    """Load the weights and allocate the KV cache."""
    device, dtype = task.torch_device, getattr(torch, task.dtype)
    decoder = load_decoder(
        checkpoint,
        task.quantization,
        dtype,
        device,
        task.context_tokens,
        task.attention is AttentionName.INVARIANT,
        RankPart(task.rank, sum_ranks),
    )
    shape = decoder.settings.shape
    cache = KVCache.allocate(shape, task.blocks, task.block_tokens, dtype, device)
    attention = make_attention(task.attention, cache, decoder.attention)
    if task.rank.count == 1 and task.attention is AttentionName.TRITON and device.type == "cuda":
        from llm_engine.engine.decode_graphs import make_graphs

        most_requests = LARGEST_STEPS["cuda"].requests
        graphs = make_graphs(decoder, attention, most_requests, task.context_tokens)
        return Runner(decoder, cache, attention, task.threads, graphs)
    return make_runner(decoder, cache, attention, task.threads)
