"""What an attention backend must do; `paged` does it with torch alone."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from llm_engine.attention.batch import StepBatch


@dataclass(frozen=True)
class AttentionSettings:
    """How scores are made from queries and keys.

    scale    factor on every score; 1 / sqrt(head_dim) for most models
    softcap  scores are squeezed to softcap * tanh(score / softcap); None: they are not
    """

    query_heads: int
    scale: float
    softcap: float | None = None


class AttentionBackend(Protocol):
    """Attention of a step's queries over the paged cache.

    A backend is built from the cache and the settings, and used by one thread.
    """

    def plan(self, batch: StepBatch) -> Any:
        """Prepare what all layers of the step share: where to write, what to read and to mask."""
        ...

    def attend(self, layer: int, queries: Tensor, keys_values: Tensor, plan: Any) -> Tensor:
        """Store the step's keys and values, and return what its queries see.

        queries      [tokens, query_heads, head_dim], position encoding applied
        keys_values  [tokens, 2, kv_heads, head_dim]
        plan         from `plan`, the same for every layer
        returns      [tokens, query_heads, head_dim]
        """
        ...
