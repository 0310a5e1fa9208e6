"""`llm-engine inspect --plan`: where the bytes of a model will go on this machine."""

from collections.abc import Iterator
from typing import Final

from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.contract.memory_plan import (
    LARGEST_STEPS,
    MemoryPlan,
    MemoryRequest,
    plan_memory,
)
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_engine.engine.baseline import Baseline, read_baseline

FIRST_USE_BYTES: Final = 28 << 20
"""Code and buffers that torch's kernels on a CPU take when a whole model first uses them."""
TOKENIZER_BYTES_PER_WORD: Final = 400
"""Measured with the tokenizers library: vocabulary, merges and their indexes."""
_MIB: Final = 1 << 20


def plan_here(
    shape: ModelShape,
    quantization: Quantization,
    device: str,
    max_context_tokens: int | None,
    kv_cache_bytes: int | None,
    attention: AttentionName = AttentionName.AUTO,
) -> MemoryPlan:
    """Return the plan for this machine; raises ValueError for options that will not do."""
    return plan_for(
        shape, read_baseline(device), quantization, max_context_tokens, kv_cache_bytes, attention
    )


def plan_for(
    shape: ModelShape,
    baseline: Baseline,
    quantization: Quantization,
    max_context_tokens: int | None,
    kv_cache_bytes: int | None,
    attention: AttentionName = AttentionName.AUTO,
) -> MemoryPlan:
    """Return the plan for a machine of which all is known."""
    context_tokens = max_context_tokens or shape.context_tokens
    if not 2 <= context_tokens <= shape.context_tokens:
        raise ValueError(
            f"max_context_tokens is {context_tokens}; the model allows 2 to {shape.context_tokens}"
        )
    framework_bytes = baseline.framework_bytes
    if baseline.device == "cpu":  # a GPU's memory holds neither
        framework_bytes += FIRST_USE_BYTES + shape.vocabulary * TOKENIZER_BYTES_PER_WORD
    return plan_memory(
        shape,
        MemoryRequest(
            quantization=quantization,
            device=baseline.device,
            dtype_bytes=baseline.dtype_bytes,
            context_tokens=context_tokens,
            free_bytes=baseline.free_bytes,
            framework_bytes=framework_bytes,
            step=LARGEST_STEPS[baseline.device],
            kv_cache_bytes=kv_cache_bytes,
            gathers=baseline.device == "cpu" or attention is AttentionName.TORCH,
        ),
    )


def described(plan: MemoryPlan) -> Iterator[str]:
    """Yield the plan line by line, for a person."""
    dtype = {2: "bf16", 4: "fp32"}[plan.dtype_bytes]
    yield f"plan          {plan.quantization} on {plan.device}, computed in {dtype}"
    rows = {
        "framework": (plan.framework_bytes, "interpreter, torch, tokenizer"),
        "embedding": (plan.embedding_bytes, ""),
        "linears": (plan.linear_bytes, str(plan.quantization)),
        "norms": (plan.norm_bytes, "and biases, routers"),
        "head": (plan.head_bytes, "" if plan.head_bytes else "shares the embedding"),
        "rope table": (plan.rope_bytes, f"{plan.context_tokens:,} positions"),
        "keys, values": (plan.kv_cache_bytes, f"{plan.blocks:,} blocks of {plan.block_bytes:,}"),
        "largest step": (plan.step_bytes, _step(plan)),
        "total": (plan.total_bytes, ""),
        "free": (plan.free_bytes, "" if plan.fits else "does not fit"),
    }
    if plan.device == "cuda":
        rows["framework"] = (plan.framework_bytes, "CUDA context")
    for name, (amount, remark) in rows.items():
        yield f"  {name:<12}{amount / _MIB:>12,.1f} MiB  {remark}".rstrip()
    yield f"  longest context that fits: {plan.most_context_tokens:,} tokens"


def refuse_if_too_large(plan: MemoryPlan) -> None:
    """Raise ModelRefused with the numbers where the plan does not fit."""
    if plan.problem is not None:
        raise ModelRefused(FailureReason.OUT_OF_MEMORY, plan.problem)


def _step(plan: MemoryPlan) -> str:
    parts = {
        "attention": plan.attention_bytes,
        "activations": plan.activation_bytes,
        "logits": plan.logits_bytes,
    }
    attention, activations, logits = (f"{n} {b / _MIB:,.1f}" for n, b in parts.items())
    return f"{attention}, then {activations} or {logits}"
