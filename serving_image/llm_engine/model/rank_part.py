"""A rank's part of a model, and how ranks add up what each of them computes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from llm_engine.contract.tensor_parallel import Rank
from llm_engine.quantization.linear import Linear

SumRanks = Callable[[Tensor], Tensor]
"""Returns the sum of all ranks' tensors, on every rank; may write to its argument."""


@dataclass(frozen=True)
class RankPart:
    """Which of how many ranks this process is.

    sum_ranks  None: there is one rank, and nothing to add up
    """

    rank: Rank = field(default_factory=Rank)
    sum_ranks: SumRanks | None = None


class Summed:
    """A linear or an MLP of which this rank holds some inputs' weights."""

    def __init__(self, part: Linear, sum_ranks: SumRanks) -> None:
        self._part = part
        self._sum_ranks = sum_ranks

    @property
    def weight_bytes(self) -> int:
        """Bytes of this rank's weights."""
        return self._part.weight_bytes

    def __call__(self, x: Tensor) -> Tensor:
        """Map [tokens, in_features] to [tokens, out_features], summed over all ranks."""
        return self._sum_ranks(self._part(x).contiguous())
