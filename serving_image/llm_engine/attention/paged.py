"""Paged attention with torch's own operators: gather blocks, then one fused call.

Decoding requests of similar length go through one call together; the query heads that share a
key-value head stand in for query rows, so no key is ever repeated. A prompt's chunk is one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.attention.backend import AttentionSettings
from llm_engine.attention.batch import StepBatch
from llm_engine.attention.cache import KVCache

BUCKET_WASTE: Final = 0.5
"""Share of a decode call that padding may take before the longer requests get their own call."""


@dataclass(frozen=True)
class DecodeCall:
    """Requests that each compute one token, with contexts padded to one length.

    rows     [requests]: their rows in the step
    gather   [2 * kv_heads * requests * blocks]: pieces of the cache to collect
    mask     [requests, 1, 1, padded_tokens]: 0 where a token is, -inf where padding is
    """

    rows: Tensor
    gather: Tensor
    mask: Tensor


@dataclass(frozen=True)
class ChunkCall:
    """One request that computes several tokens.

    gather  as in DecodeCall; None for a text's beginning, whose keys are all in this step
    mask    [chunk, padded_tokens]; None for a text's beginning, which is plainly causal
    """

    start: int
    end: int
    gather: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True)
class GroupPlan:
    """Everything that is the same for all layers of a group in a step.

    written  rows of the cache that take the step's keys and values
    """

    written: Tensor
    decodes: tuple[DecodeCall, ...]
    chunks: tuple[ChunkCall, ...]


class PagedAttention:
    """Attention of a step's queries over the cache, on any device."""

    def __init__(self, cache: KVCache, settings: AttentionSettings) -> None:
        first = cache.slots[0]
        self._cache = cache
        self._settings = settings
        self._kv_heads = first.shape[2]
        self._head_dim = first.shape[4]
        # One head of one block as a row: [blocks * 2 * kv_heads, block_tokens * head_dim].
        self._pieces = tuple(
            slot.view(-1, cache.block_tokens * self._head_dim) for slot in cache.slots
        )
        # Which of a block's rows belongs to each head.
        self._heads = torch.arange(2 * self._kv_heads, device=first.device)
        self._gathered = torch.empty(0, dtype=first.dtype, device=first.device)

    def plan(self, batch: StepBatch) -> tuple[GroupPlan, ...]:
        """Prepare what the layers of each group share: where to write, what to gather and mask."""
        return tuple(self._group_plan(batch, group) for group in range(len(batch.groups)))

    def attend(
        self, layer: int, queries: Tensor, keys_values: Tensor, plan: tuple[GroupPlan, ...]
    ) -> Tensor:
        """Store the step's keys and values, and return what its queries see.

        queries      [tokens, heads, head_dim]
        keys_values  [tokens, 2, kv_heads, head_dim]
        returns      [tokens, heads, head_dim]
        """
        group, slot = self._cache.places[layer]
        calls = plan[group]
        self._cache.write(slot, calls.written, keys_values)
        out = torch.empty_like(queries)
        for call in calls.decodes:
            self._decode(slot, queries, call, out)
        for chunk in calls.chunks:
            self._chunk(slot, queries, keys_values, chunk, out)
        return out

    def _group_plan(self, batch: StepBatch, group: int) -> GroupPlan:
        decoding = [r for r in range(batch.requests) if batch.query_tokens(r) == 1]
        decoding.sort(key=lambda r: len(batch.used_blocks(group, r)))
        chunks = [r for r in range(batch.requests) if batch.query_tokens(r) > 1]
        lengths = [len(batch.used_blocks(group, r)) for r in range(batch.requests)]
        return GroupPlan(
            written=self._cache.rows(self._indices(batch.slots(group))),
            decodes=tuple(
                self._decode_call(batch, group, bucket) for bucket in _buckets(lengths, decoding)
            ),
            chunks=tuple(self._chunk_call(batch, group, request) for request in chunks),
        )

    def _decode(self, slot: int, queries: Tensor, call: DecodeCall, out: Tensor) -> None:
        requests = len(call.rows)
        # [2, kv_heads, requests, padded_tokens, head_dim] -> keys, values [requests, kv_heads, …]
        keys, values = self._gather(slot, call.gather, requests).transpose(1, 2)
        grouped = queries[call.rows].view(requests, self._kv_heads, -1, self._head_dim)
        mask = call.mask.expand(-1, self._kv_heads, grouped.shape[2], -1)
        seen = self._weigh(grouped, keys, values, mask)
        out[call.rows] = seen.reshape(requests, -1, self._head_dim)

    def _chunk(
        self, slot: int, queries: Tensor, keys_values: Tensor, call: ChunkCall, out: Tensor
    ) -> None:
        rows = slice(call.start, call.end)
        if call.gather is None:
            keys, values = keys_values[rows].permute(1, 2, 0, 3)
        else:
            keys, values = self._gather(slot, call.gather, 1)[:, :, 0]
        # The heads of a group see one key head through a stride of 0:
        # queries [kv_heads, group, chunk, head_dim], keys [kv_heads, group, context, head_dim].
        grouped = queries[rows].view(call.end - call.start, self._kv_heads, -1, self._head_dim)
        grouped = grouped.permute(1, 2, 0, 3)
        size = grouped.shape[1]
        seen = self._weigh(
            grouped,
            keys[:, None].expand(-1, size, -1, -1),
            values[:, None].expand(-1, size, -1, -1),
            call.mask,
        )
        out[rows] = seen.permute(2, 0, 1, 3).reshape(out[rows].shape)

    def _weigh(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Return the values weighed by softmax(queries keysT); without a mask it is causal."""
        softcap = self._settings.softcap
        if softcap is None:
            return F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
                scale=self._settings.scale,
            )
        # No fused operator caps its scores.
        scores = queries @ keys.transpose(-1, -2) * self._settings.scale
        scores = softcap * torch.tanh(scores / softcap)
        if mask is None:
            mask = torch.full_like(scores[0, 0], float("-inf")).triu_(1)
        return torch.softmax(scores.float() + mask, dim=-1).to(values.dtype) @ values

    def _gather(self, slot: int, index: Tensor, requests: int) -> Tensor:
        """Collect blocks side by side: [2, kv_heads, requests, padded_tokens, head_dim]."""
        pieces = self._pieces[slot]
        wanted = len(index) * pieces.shape[1]
        if self._gathered.numel() < wanted:
            self._gathered = pieces.new_empty(wanted)
        gathered = self._gathered[:wanted].view(len(index), pieces.shape[1])
        torch.index_select(pieces, 0, index, out=gathered)
        return gathered.view(2, self._kv_heads, requests, -1, self._head_dim)

    def _decode_call(self, batch: StepBatch, group: int, bucket: list[int]) -> DecodeCall:
        tables = [[*batch.used_blocks(group, r)] for r in bucket]
        blocks = max(len(table) for table in tables)
        # Padding names block 0, which is always there to be read; the mask hides it.
        padded = self._indices([[*t, *([0] * (blocks - len(t)))] for t in tables])
        first = self._indices([batch.groups[group].released[r] for r in bucket])
        last = self._indices([batch.context_tokens[r] - 1 for r in bucket])
        return DecodeCall(
            rows=self._indices([batch.query_starts[r] for r in bucket]),
            gather=self._gather_index(padded),
            mask=self._mask(batch, group, first[:, None], last[:, None], blocks)[:, None, None, :],
        )

    def _chunk_call(self, batch: StepBatch, group: int, request: int) -> ChunkCall:
        start, end = batch.query_starts[request], batch.query_starts[request + 1]
        context = batch.context_tokens[request]
        window = batch.groups[group].window_tokens
        past = context - (end - start)
        if past == 0 and (window is None or context <= window):
            return ChunkCall(start, end, None, None)
        table = self._indices([[*batch.used_blocks(group, request)]])
        first = self._indices([batch.groups[group].released[request]])
        rows = self._indices(range(past, context))
        mask = self._mask(batch, group, first[:, None], rows[:, None], table.shape[1])
        return ChunkCall(start, end, self._gather_index(table), mask)

    def _gather_index(self, tables: Tensor) -> Tensor:
        """Turn block tables [requests, blocks] into rows of the pieces, for every head."""
        return (tables[None] * len(self._heads) + self._heads[:, None, None]).reshape(-1)

    def _mask(
        self, batch: StepBatch, group: int, released: Tensor, rows: Tensor, blocks: int
    ) -> Tensor:
        """Return 0 where a query sees a token and -inf elsewhere: [rows, blocks * block_tokens].

        released  [rows or 1, 1]: blocks given back before the first one gathered
        rows      [rows, 1]: position of each query
        """
        size, window = batch.block_tokens, batch.groups[group].window_tokens
        positions = self._indices(range(blocks * size))[None, :] + released * size
        hidden = positions > rows
        if window is not None:
            hidden |= positions <= rows - window
        zeros = torch.zeros(hidden.shape, dtype=self._gathered.dtype, device=hidden.device)
        return zeros.masked_fill_(hidden, float("-inf"))

    def _indices(self, values: Sequence[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64).to(self._gathered.device, non_blocking=True)


def _buckets(lengths: Sequence[int], ascending: list[int]) -> list[list[int]]:
    """Split requests, shortest first, so that no call is mostly padding.

    lengths  blocks that each request of the step reads
    """
    buckets: list[list[int]] = []
    rest = ascending
    while rest:
        longest = lengths[rest[-1]]
        # From the longest downwards, as far as padding stays within its share.
        first, used = len(rest), 0
        while first > 0:
            used += lengths[rest[first - 1]]
            if used < (1 - BUCKET_WASTE) * longest * (len(rest) - first + 1):
                break
            first -= 1
        buckets.append(rest[first:])
        rest = rest[:first]
    return buckets
