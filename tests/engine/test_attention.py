"""Paged attention against plain attention over each request's whole text."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from, tuples

from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.attention.paged import PagedAttention
from llm_engine.contract.shape import ModelShape
from tests.engine.attention_cases import Case, a_cache, make_step

CPU = torch.device("cpu")

# Per request: tokens computed before, and tokens of this step.
progress = tuples(integers(0, 40), sampled_from([1, 1, 1, 2, 7, 20]))


@settings(max_examples=60, deadline=None)
@given(
    requests=lists(progress, min_size=1, max_size=7),
    heads=sampled_from([(1, 1), (2, 1), (2, 3), (3, 4)]),
    block_tokens=sampled_from([4, 16]),
    window=sampled_from([None, 1, 5, 16]),
    softcap=sampled_from([None, 2.0]),
    seed=integers(0, 1000),
)
def test_every_row_sees_what_dense_attention_sees(
    requests: list[tuple[int, int]],
    heads: tuple[int, int],
    block_tokens: int,
    window: int | None,
    softcap: float | None,
    seed: int,
) -> None:
    kv_heads, group = heads
    case = Case(requests, kv_heads, group, 8, block_tokens, window, softcap, seed=seed)
    step = make_step(case, CPU)
    out = step.run(PagedAttention(step.cache, case.settings))
    torch.testing.assert_close(out, step.exact, rtol=1e-5, atol=1e-5)


def test_one_long_context_does_not_make_the_short_ones_padding() -> None:
    case = Case(kv_heads=1, group=1, head_dim=8, block_tokens=4)
    attention = PagedAttention(a_cache(case, 128, CPU), case.settings)
    contexts = (200, 8, 8, 8, 7, 8, 8)
    batch = StepBatch(
        query_starts=tuple(range(8)),
        context_tokens=contexts,
        groups=(
            GroupTables(None, (0,) * 7, tuple(range(-(-context // 4)) for context in contexts)),
        ),
        block_tokens=4,
    )
    calls = attention.plan(batch)[0].decodes
    read = sum(call.mask.numel() for call in calls)
    assert len(calls) == 2
    assert read < 2 * sum(contexts)


def test_positions_and_slots_follow_the_block_table() -> None:
    full = GroupTables(None, (0, 0), ([9, 2], [5]))
    windowed = GroupTables(2, (1, 0), ([7], [5]))
    batch = StepBatch((0, 1, 4), (6, 3), (full, windowed), block_tokens=4)
    assert batch.positions() == [5, 0, 1, 2]
    assert batch.slots(0) == [2 * 4 + 1, 20, 21, 22]
    assert batch.slots(1) == [7 * 4 + 1, 20, 21, 22]


def test_an_untouched_cache_holds_zeros_not_noise() -> None:
    assert not a_cache(Case(), 4, CPU).slots[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_takes_the_bytes_of_the_contract(dtype: torch.dtype) -> None:
    shape = ModelShape(
        architecture="llama", layers=3, hidden_size=8, intermediate_size=8, query_heads=6,
        kv_heads=2, head_dim=16, vocabulary=8, context_tokens=64, tied_embeddings=True,
    )  # fmt: skip
    cache = KVCache.allocate(shape, 5, 16, dtype, torch.device("cpu"))
    assert cache.nbytes == 5 * 16 * shape.kv_bytes_per_token(dtype.itemsize)
