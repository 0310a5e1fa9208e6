"""The memory that a model takes, in bytes, before any of it is taken.

The engine sizes its KV cache with these sums, `llm-engine inspect --plan` prints them, and
`benchmarks/memory_plan.py` compares them with what is measured.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, computed_field

from llm_engine.contract.arguments import BLOCK_TOKENS
from llm_engine.contract.layer_groups import block_bytes, blocks_per_request, group_layers
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import FP32_BYTES, ModelShape

KV_SHARE: Final = Fraction(9, 10)
"""Share of what is left beside weights and the largest step that keys and values may take; the
rest is for the HTTP server, padding in attention, and whatever the allocator wastes."""
DRAWN_ROWS: Final = 64
"""Requests whose tokens are drawn at a time: 256 with a vocabulary of 128,000 would take 500 MB."""
DRAWING_BYTES: Final = 15
"""Per logit of those: scaled logits, probabilities and their sums in fp32, and three masks."""
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class LargestStep:
    """The most that one step computes."""

    tokens: int
    requests: int


LARGEST_STEPS: Final = {
    # A CPU step of 256 tokens keeps its matrix units busy; more only makes streams wait.
    "cpu": LargestStep(tokens=256, requests=64),
    "cuda": LargestStep(tokens=2048, requests=256),
}
FRAMEWORK_BYTES: Final = {
    # Interpreter, torch, tokenizer in a container's memory; torch 2.15 with CUDA, x86-64.
    "cpu": 590 * _MIB,
    # The CUDA context and all kernels, in the GPU's memory: 527 MiB on an H200.
    "cuda": 540 * _MIB,
}
"""What is there before the first weight, where it was not measured."""


@dataclass(frozen=True)
class MemoryRequest:
    """What shall be loaded, and where.

    device           cpu or cuda
    dtype_bytes      bytes per element of the compute dtype, which the KV cache keeps too
    context_tokens   longest prompt plus output of one request
    kv_cache_bytes   what the user asked for; None takes a share of what is free
    free_bytes       memory that can be taken
    framework_bytes  what will be taken of it before the first weight
    gathers          attention collects a layer's keys and values before it computes (torch)
    """

    quantization: Quantization
    device: str
    dtype_bytes: int
    context_tokens: int
    free_bytes: int
    step: LargestStep
    framework_bytes: int = 0
    kv_cache_bytes: int | None = None
    block_tokens: int = BLOCK_TOKENS
    gathers: bool = True


class MemoryPlan(BaseModel):
    """Where the bytes go."""

    # Sums are written out for whoever reads the JSON, and ignored when it is read back.
    model_config = ConfigDict(frozen=True, extra="ignore")

    device: str
    quantization: Quantization
    dtype_bytes: int
    context_tokens: int
    framework_bytes: int = Field(description="interpreter and torch, or the CUDA context")
    embedding_bytes: int
    linear_bytes: int
    norm_bytes: int = Field(description="norms, biases, routers")
    head_bytes: int = Field(description="0 where the head shares the embedding")
    rope_bytes: int = Field(description="cosines and sines of every position")
    block_bytes: int
    blocks: int
    request_blocks: int = Field(description="most blocks of one request of the longest context")
    attention_bytes: int = Field(description="collected keys and values, masks")
    activation_bytes: int = Field(description="of the widest layer in the largest step")
    logits_bytes: int = Field(description="while the largest step's tokens are drawn")
    free_bytes: int
    least_bytes: int = Field(description="what one request of the longest context needs")
    most_context_tokens: int = Field(description="longest context that fits; 0 where none does")
    problem: str | None = Field(default=None, description="why it does not fit")

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return self.embedding_bytes + self.linear_bytes + self.norm_bytes + self.head_bytes

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values."""
        return self.blocks * self.block_bytes

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def step_bytes(self) -> int:
        """Bytes of the largest step: a layer's activations are gone before tokens are drawn."""
        return self.attention_bytes + max(self.activation_bytes, self.logits_bytes)

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def total_bytes(self) -> int:
        """Bytes of everything."""
        fixed = self.framework_bytes + self.weight_bytes + self.rope_bytes
        return fixed + self.kv_cache_bytes + self.step_bytes

    @property
    def fits(self) -> bool:
        """Whether one request of the longest context can be served."""
        return self.problem is None


def plan_memory(shape: ModelShape, request: MemoryRequest) -> MemoryPlan:
    """Return where the bytes go; `problem` says in numbers why they do not fit."""
    plan, problem = _attempt(shape, request)
    fits, too_long = 0, shape.context_tokens + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        _, why_not = _attempt(shape, replace(request, context_tokens=middle))
        fits, too_long = (middle, too_long) if why_not is None else (fits, middle)
    if problem is not None and fits:
        problem += f" or set maxContextTokens (--max-context-tokens) to at most {fits}"
    return plan.model_copy(update={"problem": problem, "most_context_tokens": fits})


def _attempt(shape: ModelShape, request: MemoryRequest) -> tuple[MemoryPlan, str | None]:
    """Return the plan for this very context, and why it does not fit."""
    needed = blocks_per_request(
        shape, request.context_tokens, request.step.tokens, request.block_tokens
    )
    empty = _plan(shape, request, blocks=0, needed=needed)
    one = _plan(shape, request, blocks=1, needed=needed)
    left = request.free_bytes - empty.total_bytes
    budget = int(left * KV_SHARE) if request.kv_cache_bytes is None else request.kv_cache_bytes
    # More than all running requests can use would only be waste.
    blocks = min(budget // one.block_bytes, needed * request.step.requests)
    per_block = one.total_bytes - empty.total_bytes
    if request.kv_cache_bytes is None:
        blocks = min(blocks, budget // per_block)
    plan = _plan(shape, request, blocks=max(blocks, needed), needed=needed).model_copy(
        update={"least_bytes": empty.total_bytes + ceil(needed * per_block / KV_SHARE)}
    )
    if left < 0:
        return plan, _too_heavy(plan)
    if blocks < needed:
        return plan, _too_long(plan, budget, request.kv_cache_bytes is not None)
    if plan.total_bytes > plan.free_bytes:
        return plan, _too_much_asked(plan, left)
    return plan, None


def _plan(shape: ModelShape, request: MemoryRequest, *, blocks: int, needed: int) -> MemoryPlan:
    dtype_bytes = request.dtype_bytes
    matrix = shape.vocabulary * shape.hidden_size * dtype_bytes
    head = 0 if shape.tied_embeddings else matrix
    linears = shape.linear_bytes(request.quantization, dtype_bytes)
    weights = shape.weight_bytes(request.quantization, dtype_bytes)
    size = block_bytes(shape, request.block_tokens, dtype_bytes)
    gathered = blocks * size // group_layers(shape) if request.gathers else 0
    return MemoryPlan(
        device=request.device,
        quantization=shape.stored_quantization or request.quantization,
        dtype_bytes=dtype_bytes,
        context_tokens=request.context_tokens,
        framework_bytes=request.framework_bytes,
        embedding_bytes=matrix,
        linear_bytes=linears,
        norm_bytes=weights - linears - matrix - head,
        head_bytes=head,
        rope_bytes=_rope_bytes(shape, request),
        block_bytes=size,
        blocks=blocks,
        request_blocks=needed,
        attention_bytes=gathered + _mask_bytes(request),
        activation_bytes=_activation_bytes(shape, request),
        logits_bytes=_logits_bytes(shape, request),
        free_bytes=request.free_bytes,
        least_bytes=0,
        most_context_tokens=0,
    )


def _rope_bytes(shape: ModelShape, request: MemoryRequest) -> int:
    """Return the bytes of cosines and sines; windowed layers may have rotations of their own."""
    has_both = 0 < len(shape.windowed_layers) < shape.layers
    tables = 2 if has_both else 1
    return tables * 2 * request.context_tokens * shape.head_dim * request.dtype_bytes


def _mask_bytes(request: MemoryRequest) -> int:
    """Return the bytes of masks: of every row of a chunk over the context, as bool and bias."""
    if not request.gathers:
        return 0
    return request.step.tokens * request.context_tokens * (request.dtype_bytes + 1)


def _activation_bytes(shape: ModelShape, request: MemoryRequest) -> int:
    """Return the bytes live at the widest point of a layer.

    Attention: the residual and its norm; query, key and value; those turned (three copies while
    they turn); what is stored and what is seen. MLP: the residual and its norm, gate and up, the
    activated gate, its product with up. Experts: what goes in and comes out of each chosen one,
    put in order and weighed, while the busiest expert computes all rows.
    """
    query, key_value = shape.query_heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = (query + 2 * key_value) + 3 * (query + key_value) + 2 * key_value + query
    chosen = shape.experts_per_token or 0
    experts = 4 * chosen * shape.hidden_size + 4 * (shape.expert_size or 0)
    mlp = max(4 * shape.intermediate_size, experts)
    per_token = (2 * shape.hidden_size + max(attention, mlp)) * request.dtype_bytes
    quantization = shape.stored_quantization or request.quantization
    if quantization is Quantization.INT8 and request.device == "cpu":
        # Gate and up in bf16, times their scales in fp32, then in the compute dtype.
        scaled = 2 * shape.intermediate_size * (2 + FP32_BYTES + request.dtype_bytes)
        per_token = max(per_token, scaled + 2 * shape.hidden_size * request.dtype_bytes)
    return request.step.tokens * per_token + _decoded_bytes(shape, request)


def _decoded_bytes(shape: ModelShape, request: MemoryRequest) -> int:
    """Return the bytes of the widest linear, gate and up in one, decoded for a GPU's many rows.

    A CPU decodes a block at a time, no larger than its cache.
    """
    quantization = shape.stored_quantization or request.quantization
    if request.device == "cpu" or quantization is Quantization.NONE:
        return 0
    width = max(shape.intermediate_size, shape.expert_size or 0)
    return 2 * width * shape.hidden_size * request.dtype_bytes


def _logits_bytes(shape: ModelShape, request: MemoryRequest) -> int:
    """Return the bytes while every request draws its token and wants log-probabilities.

    Logits, a copy from before they are adjusted, and one in fp32 unless they are.
    """
    requests = request.step.requests
    copies = 2 * request.dtype_bytes + (FP32_BYTES if request.dtype_bytes < FP32_BYTES else 0)
    drawn = min(requests, DRAWN_ROWS) * DRAWING_BYTES
    return (requests * copies + drawn) * shape.vocabulary


def _too_heavy(plan: MemoryPlan) -> str:
    return (
        f"the weights need {_mib(plan.weight_bytes)} as {plan.quantization}, the largest step "
        f"{_mib(plan.step_bytes)}, everything with one request of {plan.context_tokens} tokens "
        f"{_mib(plan.total_bytes)}, and {_mib(plan.free_bytes)} are free; give the container more "
        "memory, choose a smaller quantization"
    )


def _too_long(plan: MemoryPlan, budget_bytes: int, asked: bool) -> str:
    source = (
        "the size asked for with --kv-cache-bytes"
        if asked
        else f"{float(KV_SHARE):.0%} of what weights and the largest step leave of "
        f"{_mib(plan.free_bytes)}"
    )
    return (
        f"one request of {plan.context_tokens} tokens needs "
        f"{_mib(plan.request_blocks * plan.block_bytes)} for keys and values, and "
        f"{_mib(budget_bytes)} are there ({source}); give the container more memory"
    )


def _too_much_asked(plan: MemoryPlan, left_bytes: int) -> str:
    return (
        f"--kv-cache-bytes asks for {_mib(plan.kv_cache_bytes)}, and {_mib(left_bytes)} are left "
        "beside weights and the largest step; ask for less, give the container more memory"
    )


def _mib(amount_bytes: int) -> str:
    return f"{amount_bytes // _MIB} MiB"
