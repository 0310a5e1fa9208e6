"""Does a model fit a memory: sums, words, and what more memory may never do."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.contract.arguments import BLOCK_TOKENS
from llm_engine.contract.memory_plan import (
    FRAMEWORK_BYTES,
    LARGEST_STEPS,
    MemoryRequest,
    plan_memory,
)
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_operator.planner.memory import GIB, Memory, gib, memory_fit

MISTRAL_7B = ModelShape(
    architecture="llama", layers=32, hidden_size=4096, intermediate_size=14336, query_heads=32,
    kv_heads=8, head_dim=128, vocabulary=32000, context_tokens=32768, tied_embeddings=False,
)  # fmt: skip
NONE, INT8 = Quantization.NONE, Quantization.INT8


def a_memory(total_bytes: int, dtype_bytes: int = 2) -> Memory:
    return Memory(total_bytes, "cuda", dtype_bytes)


def test_what_is_needed_is_weights_workspace_and_one_request() -> None:
    fit = memory_fit(MISTRAL_7B, NONE, 8192, a_memory(24 * GIB))

    kv_bytes = 8192 * 2 * 32 * 8 * 128 * 2
    assert fit.weight_bytes == MISTRAL_7B.parameters * 2
    assert fit.workspace_bytes > FRAMEWORK_BYTES["cuda"]
    assert fit.needed_bytes == fit.weight_bytes + fit.workspace_bytes + kv_bytes
    assert fit.fits


def test_the_words_carry_the_numbers() -> None:
    fit = memory_fit(MISTRAL_7B, NONE, 8192, a_memory(24 * GIB))

    assert fit.because == (
        "needs 15.4 GiB (weights 13.5, workspace 0.89, one request of 8,192 tokens 1.0); 21.6 of"
        f" 24.0 GiB are usable: {fit.kv_cache_tokens:,} tokens of KV left"
    )


def test_what_the_planner_promises_the_engine_can_keep() -> None:
    fit = memory_fit(MISTRAL_7B, NONE, 8192, a_memory(24 * GIB))

    plan = plan_memory(
        MISTRAL_7B,
        MemoryRequest(
            quantization=NONE,
            device="cuda",
            dtype_bytes=2,
            context_tokens=8192,
            free_bytes=24 * GIB - FRAMEWORK_BYTES["cuda"],
            step=LARGEST_STEPS["cuda"],
            kv_cache_bytes=fit.kv_cache_bytes,
        ),
    )
    assert plan.fits, plan.problem
    assert plan.kv_cache_bytes == fit.kv_cache_bytes


def test_a_memory_below_the_weights_has_no_tokens_left() -> None:
    fit = memory_fit(MISTRAL_7B, NONE, 8192, a_memory(8 * GIB))

    assert (fit.fits, fit.kv_cache_tokens, fit.kv_cache_bytes) == (False, 0, 0)
    assert fit.missing_bytes == fit.needed_bytes - fit.usable_bytes > 0


def test_int8_fits_where_bf16_does_not() -> None:
    memory = a_memory(14 * GIB)

    assert not memory_fit(MISTRAL_7B, NONE, 8192, memory).fits
    assert memory_fit(MISTRAL_7B, INT8, 8192, memory).fits


@pytest.mark.parametrize(
    ("amount_bytes", "text"), [(GIB // 2, "0.50"), (GIB, "1.0"), (24 * GIB, "24.0")]
)
def test_gib_are_written_for_people(amount_bytes: int, text: str) -> None:
    assert gib(amount_bytes) == text


SHAPES = st.builds(
    ModelShape,
    architecture=st.just("llama"),
    layers=st.integers(1, 100),
    hidden_size=st.integers(8, 16384),
    intermediate_size=st.integers(8, 65536),
    query_heads=st.integers(1, 128),
    kv_heads=st.integers(1, 16),
    head_dim=st.sampled_from([32, 64, 128, 256]),
    vocabulary=st.integers(32, 300_000),
    context_tokens=st.just(1_000_000),
    tied_embeddings=st.booleans(),
)
MEMORIES = st.builds(
    Memory,
    total_bytes=st.integers(1, 300 * GIB),
    device=st.sampled_from(["cpu", "cuda"]),
    dtype_bytes=st.sampled_from([2, 4]),
)
QUANTIZATIONS = st.sampled_from(Quantization)
CONTEXTS = st.integers(1, 1_000_000)


@given(SHAPES, QUANTIZATIONS, CONTEXTS, MEMORIES, st.integers(0, 300 * GIB))
def test_more_memory_never_fits_less(
    shape: ModelShape, quantization: Quantization, context: int, memory: Memory, more_bytes: int
) -> None:
    larger = replace(memory, total_bytes=memory.total_bytes + more_bytes)
    before = memory_fit(shape, quantization, context, memory)
    after = memory_fit(shape, quantization, context, larger)

    assert after.fits or not before.fits
    assert after.kv_cache_tokens >= before.kv_cache_tokens
    assert after.needed_bytes == before.needed_bytes


@given(SHAPES, QUANTIZATIONS, CONTEXTS, MEMORIES)
def test_the_plan_never_exceeds_the_memory(
    shape: ModelShape, quantization: Quantization, context: int, memory: Memory
) -> None:
    fit = memory_fit(shape, quantization, context, memory)

    if fit.kv_cache_bytes:
        taken_bytes = fit.weight_bytes + fit.workspace_bytes + fit.kv_cache_bytes
        assert taken_bytes <= memory.usable_bytes <= memory.total_bytes
    token_bytes = shape.kv_bytes_per_token(memory.dtype_bytes)
    assert fit.kv_cache_bytes == fit.kv_cache_tokens * token_bytes
    assert fit.kv_cache_tokens % BLOCK_TOKENS == 0


@given(SHAPES, QUANTIZATIONS, CONTEXTS, MEMORIES)
def test_what_fits_has_room_for_one_longest_request(
    shape: ModelShape, quantization: Quantization, context: int, memory: Memory
) -> None:
    fit = memory_fit(shape, quantization, context, memory)

    assert fit.fits == (fit.kv_cache_tokens >= context)


@given(SHAPES, CONTEXTS, CONTEXTS, MEMORIES)
def test_a_longer_context_never_needs_less(
    shape: ModelShape, one: int, other: int, memory: Memory
) -> None:
    short, long = sorted((one, other))

    needed_bytes = [memory_fit(shape, NONE, each, memory).needed_bytes for each in (short, long)]
    assert needed_bytes == sorted(needed_bytes)
