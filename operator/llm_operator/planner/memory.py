"""Does a model fit a memory, and how many tokens can it keep there?"""

from dataclasses import dataclass
from typing import Final

from llm_engine.contract.arguments import BLOCK_TOKENS
from llm_engine.contract.memory_plan import (
    FRAMEWORK_BYTES,
    LARGEST_STEPS,
    MemoryRequest,
    plan_memory,
)
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape

GIB: Final = 2**30
USABLE_SHARE: Final = 0.9
"""Share of a memory that is planned for; the rest is fragmentation and what others take."""


@dataclass(frozen=True)
class Memory:
    """The memory that weights, keys and values of one replica share, and how it computes there.

    total_bytes  all of it
    device       cpu or cuda, as the engine calls it
    dtype_bytes  bytes per element of the compute dtype: 2 for bf16, 4 for fp32
    """

    total_bytes: int
    device: str
    dtype_bytes: int

    @property
    def usable_bytes(self) -> int:
        """Bytes that are planned for."""
        return int(self.total_bytes * USABLE_SHARE)


@dataclass(frozen=True)
class MemoryFit:
    """What a model takes of a memory, and what is left.

    usable_bytes     of the memory
    workspace_bytes  interpreter and torch, the largest step, a reserve
    needed_bytes     weights, workspace and the keys and values of one longest request
    kv_cache_bytes   for keys and values, in whole blocks; 0 where the model does not fit
    kv_cache_tokens  tokens whose keys and values fit there
    because          the same in words
    """

    usable_bytes: int
    weight_bytes: int
    workspace_bytes: int
    needed_bytes: int
    kv_cache_bytes: int
    kv_cache_tokens: int
    because: str

    @property
    def missing_bytes(self) -> int:
        """Bytes by which the memory is too small; 0 or less where the model fits."""
        return self.needed_bytes - self.usable_bytes

    @property
    def fits(self) -> bool:
        """Whether one request of the longest context can be served."""
        return self.missing_bytes <= 0


def memory_fit(
    shape: ModelShape, quantization: Quantization, context_tokens: int, memory: Memory
) -> MemoryFit:
    """Tell whether one request of `context_tokens` fits, by the engine's own sums."""
    plan = plan_memory(
        shape,
        MemoryRequest(
            quantization=quantization,
            device=memory.device,
            dtype_bytes=memory.dtype_bytes,
            context_tokens=context_tokens,
            free_bytes=memory.usable_bytes,
            framework_bytes=FRAMEWORK_BYTES[memory.device],
            step=LARGEST_STEPS[memory.device],
            gathers=memory.device == "cpu",
        ),
    )
    request_bytes = plan.request_blocks * plan.block_bytes
    workspace_bytes = plan.least_bytes - plan.weight_bytes - request_bytes
    blocks = plan.blocks if plan.fits else 0
    # A block holds some layers of some tokens; where all layers share one table, all of them.
    whole_blocks = -(-context_tokens // BLOCK_TOKENS)
    kv_cache_tokens = blocks * whole_blocks // plan.request_blocks * BLOCK_TOKENS
    return MemoryFit(
        usable_bytes=memory.usable_bytes,
        weight_bytes=plan.weight_bytes,
        workspace_bytes=workspace_bytes,
        needed_bytes=plan.least_bytes,
        kv_cache_bytes=blocks * plan.block_bytes,
        kv_cache_tokens=kv_cache_tokens,
        because=(
            f"needs {gib(plan.least_bytes)} GiB (weights {gib(plan.weight_bytes)}, workspace"
            f" {gib(workspace_bytes)}, one request of {context_tokens:,} tokens"
            f" {gib(request_bytes)}); {gib(memory.usable_bytes)} of {gib(memory.total_bytes)} GiB"
            f" are usable: {kv_cache_tokens:,} tokens of KV left"
        ),
    )


def gib(amount_bytes: int) -> str:
    """Write bytes as GiB with one decimal, two below 1."""
    amount = amount_bytes / GIB
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.2f}"
