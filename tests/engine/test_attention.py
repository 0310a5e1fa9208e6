"""Paged attention against plain attention over each request's whole text."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import DataObject, integers, lists, sampled_from, tuples
from hypothesis.strategies import data as st_data

from llm_engine.attention.backend import AttentionSettings
from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.attention.paged import PagedAttention
from llm_engine.contract.shape import ModelShape

BLOCKS = 128


def an_attention(cache: KVCache, query_heads: int, softcap: float | None = None) -> PagedAttention:
    scale = cache.slots[0].shape[-1] ** -0.5
    return PagedAttention(cache, AttentionSettings(query_heads, scale, softcap))


def a_cache(kv_heads: int, head_dim: int, block_tokens: int, window: int | None = None) -> KVCache:
    shape = ModelShape(
        architecture="llama", layers=1, hidden_size=8, intermediate_size=8, query_heads=kv_heads,
        kv_heads=kv_heads, head_dim=head_dim, vocabulary=8, context_tokens=64, tied_embeddings=True,
        window_tokens=window, windowed_layers=() if window is None else (0,),
    )  # fmt: skip
    return KVCache.allocate(shape, BLOCKS, block_tokens, torch.float32, torch.device("cpu"))


def dense(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    past: int,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """One request's attention, head by head: queries [chunk, heads, d], keys [context, kv, d]."""
    group = queries.shape[1] // keys.shape[1]
    out = torch.empty_like(queries)
    for head in range(queries.shape[1]):
        scores = queries[:, head] @ keys[:, head // group].T / queries.shape[2] ** 0.5
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(past + 1)
        if window is not None:
            hidden |= torch.ones_like(hidden).tril(past - window)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        out[:, head] = weights @ values[:, head // group]
    return out


# Per request: tokens computed before, and tokens of this step.
progress = tuples(integers(0, 40), sampled_from([1, 1, 1, 2, 7, 20]))


@settings(max_examples=60, deadline=None)
@given(
    lists(progress, min_size=1, max_size=7),
    sampled_from([(1, 1), (2, 1), (2, 3), (3, 4)]),
    sampled_from([4, 16]),
    sampled_from([None, 1, 5, 16]),
    sampled_from([None, 2.0]),
    st_data(),
)
def test_every_row_sees_what_dense_attention_sees(
    progresses: list[tuple[int, int]],
    heads: tuple[int, int],
    block_tokens: int,
    window: int | None,
    softcap: float | None,
    data: DataObject,
) -> None:
    kv_heads, group = heads
    torch.manual_seed(data.draw(integers(0, 1000)))
    cache = a_cache(kv_heads, 8, block_tokens, window)
    # Blocks in no order, and one more than needed: an owner may hold blocks ahead of its text.
    order = torch.randperm(BLOCKS).tolist()
    attention = an_attention(cache, kv_heads * group, softcap)
    texts, tables, released = [], [], []
    for past, count in progresses:
        blocks = -(-(past + count) // block_tokens) + 1
        tables.append([order.pop() for _ in range(min(blocks, len(order)))])
        texts.append(torch.randn(past + count, 2, kv_heads, 8))
        slots = [tables[-1][p // block_tokens] * block_tokens + p % block_tokens for p in
                 range(past)]  # fmt: skip
        written = cache.rows(torch.tensor(slots, dtype=torch.int64))
        cache.write(0, written, texts[-1][:past])
        # What slid out of the window was given back.
        gone = 0 if window is None else max(0, past + 1 - window) // block_tokens
        released.append(gone)
        del tables[-1][:gone]
    starts = [0]
    for _, count in progresses:
        starts.append(starts[-1] + count)
    batch = StepBatch(
        query_starts=tuple(starts),
        context_tokens=tuple(past + count for past, count in progresses),
        groups=(GroupTables(window, tuple(released), tuple(tables)),),
        block_tokens=block_tokens,
    )
    queries = torch.randn(starts[-1], kv_heads * group, 8)
    new = torch.cat([text[past:] for text, (past, _) in zip(texts, progresses, strict=True)])
    out = attention.attend(0, queries, new, attention.plan(batch))
    for request, (past, _) in enumerate(progresses):
        rows = slice(starts[request], starts[request + 1])
        keys, values = texts[request].unbind(dim=1)
        torch.testing.assert_close(
            out[rows], dense(queries[rows], keys, values, past, window, softcap)
        )


def test_one_long_context_does_not_make_the_short_ones_padding() -> None:
    attention = an_attention(a_cache(1, 8, 4), 1)
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
    assert not a_cache(2, 8, 4).slots[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_takes_the_bytes_of_the_contract(dtype: torch.dtype) -> None:
    shape = ModelShape(
        architecture="llama", layers=3, hidden_size=8, intermediate_size=8, query_heads=6,
        kv_heads=2, head_dim=16, vocabulary=8, context_tokens=64, tied_embeddings=True,
    )  # fmt: skip
    cache = KVCache.allocate(shape, 5, 16, dtype, torch.device("cpu"))
    assert cache.nbytes == 5 * 16 * shape.kv_bytes_per_token(dtype.itemsize)
