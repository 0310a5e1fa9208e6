"""Steps of requests at every stage, with what plain attention over their whole texts gives.

Shared by the tests and by serving_image/benchmarks/gpu_check.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_engine.attention.backend import AttentionBackend, AttentionSettings
from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.contract.shape import ModelShape

MIXED = ((0, 20), (37, 1), (5, 1), (0, 1), (90, 7), (16, 1), (64, 33))


@dataclass(frozen=True)
class Case:
    """One step.

    requests  per request: tokens computed before, and tokens of this step
    group     query heads per key-value head
    """

    requests: Sequence[tuple[int, int]] = MIXED
    kv_heads: int = 2
    group: int = 3
    head_dim: int = 64
    block_tokens: int = 16
    window: int | None = None
    softcap: float | None = None
    dtype: torch.dtype = torch.float32
    seed: int = 0

    @property
    def settings(self) -> AttentionSettings:
        return AttentionSettings(
            self.kv_heads * self.group, 1.3 * self.head_dim**-0.5, self.softcap
        )


@dataclass(frozen=True)
class Step:
    """A case made real: what a backend gets, and what it is to return.

    exact  in fp32, of the same rounded queries, keys and values
    """

    case: Case
    cache: KVCache
    batch: StepBatch
    queries: Tensor
    keys_values: Tensor
    exact: Tensor

    def run(self, backend: AttentionBackend) -> Tensor:
        return backend.attend(0, self.queries, self.keys_values, backend.plan(self.batch))


def make_step(case: Case, device: torch.device) -> Step:
    """Fill a cache with the requests' past, in blocks of no order; poison all that nobody owns."""
    torch.manual_seed(case.seed)
    size, needed = case.block_tokens, 0
    texts, tables, released = [], [], []
    needed = sum(-(-(past + count) // size) + 1 for past, count in case.requests)
    order = torch.randperm(needed + 2).tolist()
    cache = a_cache(case, len(order), device)
    for slot in cache.slots:
        slot.fill_(1e4)  # finite: a masked position may be read
    for past, count in case.requests:
        # One more than needed: an owner may hold blocks ahead of its text.
        table = [order.pop() for _ in range(-(-(past + count) // size) + 1)]
        text = torch.randn(past + count, 2, case.kv_heads, case.head_dim).to(case.dtype)
        slots = [table[p // size] * size + p % size for p in range(past)]
        rows = cache.rows(torch.tensor(slots, dtype=torch.int64, device=device))
        cache.write(0, rows, text[:past].to(device))
        # What slid out of the window was given back, and belongs to others now.
        gone = 0 if case.window is None else max(0, past + 1 - case.window) // size
        for block in table[:gone]:
            cache.slots[0][block] = 1e4
        released.append(gone)
        tables.append(table[gone:])
        texts.append(text)
    counts = [count for _, count in case.requests]
    batch = StepBatch(
        query_starts=tuple(sum(counts[:end]) for end in range(len(counts) + 1)),
        context_tokens=tuple(past + count for past, count in case.requests),
        groups=(GroupTables(case.window, tuple(released), tuple(tables)),),
        block_tokens=size,
    )
    heads = case.kv_heads * case.group
    # As a decoder makes them: a view of a wider row.
    wider = torch.randn(sum(counts), heads + 1, case.head_dim).to(case.dtype)
    queries = wider[:, :heads]
    new = torch.cat([text[-count:] for text, count in zip(texts, counts, strict=True)])
    exact = torch.cat(
        [
            dense(rows.float(), text[:, 0].float(), text[:, 1].float(), case)
            for rows, text in zip(torch.split(queries, counts), texts, strict=True)
        ]
    )
    return Step(case, cache, batch, wider.to(device)[:, :heads], new.to(device), exact)


def a_cache(case: Case, blocks: int, device: torch.device) -> KVCache:
    shape = ModelShape(
        architecture="llama", layers=1, hidden_size=8, intermediate_size=8,
        query_heads=case.kv_heads * case.group, kv_heads=case.kv_heads, head_dim=case.head_dim,
        vocabulary=8, context_tokens=64, tied_embeddings=True, window_tokens=case.window,
        windowed_layers=() if case.window is None else (0,),
    )  # fmt: skip
    return KVCache.allocate(shape, blocks, case.block_tokens, case.dtype, device)


def dense(queries: Tensor, keys: Tensor, values: Tensor, case: Case) -> Tensor:
    """One request's attention, head by head: queries [chunk, heads, d], keys [context, kv, d]."""
    past = len(keys) - len(queries)
    out = torch.empty_like(queries)
    for head in range(queries.shape[1]):
        scores = queries[:, head] @ keys[:, head // case.group].T * case.settings.scale
        if case.softcap is not None:
            scores = case.softcap * torch.tanh(scores / case.softcap)
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(past + 1)
        if case.window is not None:
            hidden |= torch.ones_like(hidden).tril(past - case.window)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        out[:, head] = weights @ values[:, head // case.group]
    return out


CASES: Mapping[str, Case] = {
    "prompts and decoding requests in one step": Case(),
    "bf16": Case(dtype=torch.bfloat16, head_dim=128, group=4),
    "fp16": Case(dtype=torch.float16, head_dim=32, requests=((0, 20), (37, 1), (5, 1))),
    "one query head per key head": Case(group=1, kv_heads=3),
    "one key head for all of 32": Case(group=32, kv_heads=1, requests=((30, 1), (3, 2))),
    "heads of 8": Case(head_dim=8),
    "heads of 80, no power of two": Case(head_dim=80),
    "heads of 96 in bf16": Case(head_dim=96, dtype=torch.bfloat16),
    "heads of 128": Case(head_dim=128, group=5),
    "heads of 256": Case(head_dim=256, group=2, requests=((40, 1), (3, 9))),
    "heads of 256 in bf16": Case(head_dim=256, group=2, dtype=torch.bfloat16),
    "blocks of 8": Case(block_tokens=8),
    "blocks of 64": Case(block_tokens=64),
    "a window of one token": Case(window=1),
    "a window shorter than a block": Case(window=5),
    "a window of many blocks": Case(window=40, requests=((300, 1), (90, 30), (10, 3))),
    "a window in bf16": Case(window=40, dtype=torch.bfloat16, requests=((300, 1), (90, 30))),
    "capped scores": Case(softcap=1.5),
    "capped scores and a window": Case(softcap=1.5, window=24, head_dim=32),
    "one long context, in splits": Case(requests=((900, 1),), group=4),
    "one long context in bf16": Case(
        requests=((4000, 1),), group=4, head_dim=128, dtype=torch.bfloat16
    ),
    "splits of very unequal contexts": Case(requests=((900, 1), (3, 1)), group=4, kv_heads=1),
    "splits of a window": Case(requests=((900, 1),), window=500, group=4),
    "a chunk behind a long past": Case(requests=((500, 40),), kv_heads=1),
}

TOLERANCES: Mapping[torch.dtype, float] = {
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}
"""Largest error, absolute and relative."""
