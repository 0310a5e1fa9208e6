"""Does a model fit a memory, and how many tokens can it keep there?"""

from dataclasses import dataclass
from typing import Final

from llm_engine.contract.arguments import BLOCK_TOKENS
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape

GIB: Final = 2**30
USABLE_SHARE: Final = 0.9
"""Share of a memory that is planned for; the rest is fragmentation and what others take."""


@dataclass(frozen=True)
class Memory:
    """The memory that weights, keys and values of one replica share, and how it computes there.

    total_bytes    all of it
    dtype_bytes    bytes per element of the compute dtype: 2 for bf16, 4 for fp32
    runtime_bytes  what the engine takes before the first weight: interpreter, torch, libraries
    step_tokens    tokens in the engine's largest step
    step_requests  requests in it; for each a row of logits is kept
    """

    total_bytes: int
    dtype_bytes: int
    runtime_bytes: int
    step_tokens: int
    step_requests: int

    @property
    def usable_bytes(self) -> int:
        """Bytes that are planned for."""
        return int(self.total_bytes * USABLE_SHARE)


@dataclass(frozen=True)
class MemoryFit:
    """What a model takes of a memory, and what is left.

    usable_bytes     of the memory
    needed_bytes     weights, workspace and the keys and values of one longest request
    kv_cache_bytes   left for keys and values, in whole blocks; 0 where the weights do not fit
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
    """Tell whether weights, workspace and one request of `context_tokens` fit into the memory."""
    weight_bytes = shape.weight_bytes(quantization, memory.dtype_bytes)
    workspace_bytes = memory.runtime_bytes + activation_bytes(shape, memory)
    block_bytes = BLOCK_TOKENS * shape.kv_bytes_per_token(memory.dtype_bytes)
    request_bytes = -(-context_tokens // BLOCK_TOKENS) * block_bytes
    needed_bytes = weight_bytes + workspace_bytes + request_bytes

    left_bytes = max(0, memory.usable_bytes - weight_bytes - workspace_bytes)
    blocks = left_bytes // block_bytes
    kv_cache_tokens = blocks * BLOCK_TOKENS
    return MemoryFit(
        usable_bytes=memory.usable_bytes,
        weight_bytes=weight_bytes,
        workspace_bytes=workspace_bytes,
        needed_bytes=needed_bytes,
        kv_cache_bytes=blocks * block_bytes,
        kv_cache_tokens=kv_cache_tokens,
        because=(
            f"needs {gib(needed_bytes)} GiB (weights {gib(weight_bytes)}, workspace"
            f" {gib(workspace_bytes)}, one request of {context_tokens:,} tokens"
            f" {gib(request_bytes)}); {gib(memory.usable_bytes)} of {gib(memory.total_bytes)} GiB"
            f" are usable: {kv_cache_tokens:,} tokens of KV left"
        ),
    )


def activation_bytes(shape: ModelShape, memory: Memory) -> int:
    """Return the bytes that one step takes beside weights, keys and values.

    Live at once at the widest point of a layer: the residual and its norm, query, key, value and
    attention output, gate, up and their product; then the fp32 logits; and one linear weight in
    the compute dtype, which a quantized one needs while it multiplies.
    """
    heads = (2 * shape.query_heads + 2 * shape.kv_heads) * shape.head_dim
    per_token = 2 * shape.hidden_size + max(heads, 3 * shape.intermediate_size)
    logits_bytes = memory.step_requests * shape.vocabulary * 4
    widest_linear = max(linear.out_features * linear.in_features for linear in shape.linears)
    return (memory.step_tokens * per_token + widest_linear) * memory.dtype_bytes + logits_bytes


def gib(amount_bytes: int) -> str:
    """Write bytes as GiB with one decimal, two below 1."""
    amount = amount_bytes / GIB
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.2f}"
