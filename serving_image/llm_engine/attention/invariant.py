"""Attention whose every bit depends on a request's own text only, not on who else is in the step.

Sums of floating-point numbers depend on their order, and fused kernels choose it by the size of the
batch. Here a query always has the same place in a tile of queries, and meets the same tiles of keys
in the same order, whether it comes with a whole prompt, in a chunk, or alone. What it must not see
weighs exactly 0, so it changes nothing. That is slow: it is for checks, and for answers that must
be reproducible to the last bit.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.attention.backend import AttentionSettings
from llm_engine.attention.batch import StepBatch
from llm_engine.attention.cache import KVCache

QUERY_TILE: Final = 16
KEY_TILE: Final = 64


@dataclass(frozen=True)
class Part:
    """One request of a step, for one layer group.

    start, past, context  its first row in the step, its tokens computed before, and with this step
    first                 position of the first token in its blocks
    blocks                [blocks]
    """

    start: int
    past: int
    context: int
    first: int
    blocks: Tensor


@dataclass(frozen=True)
class GroupPlan:
    """Everything that is the same for all layers of a group in a step.

    written  rows of the cache that take the step's keys and values
    """

    written: Tensor
    window_tokens: int | None
    parts: tuple[Part, ...]


class InvariantAttention:
    """Attention in tiles of fixed size at fixed places of each text, in fp32."""

    def __init__(self, cache: KVCache, settings: AttentionSettings) -> None:
        self._cache = cache
        self._settings = settings
        self._device = cache.slots[0].device

    def plan(self, batch: StepBatch) -> tuple[GroupPlan, ...]:
        """Prepare what the layers of each group share: where to write, and what to read."""
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
        for part in calls.parts:
            rows = slice(part.start, part.start + part.context - part.past)
            seen = self._request(slot, part, queries[rows].float(), calls.window_tokens)
            out[rows] = seen.to(out.dtype)
        return out

    def _group_plan(self, batch: StepBatch, group: int) -> GroupPlan:
        def tensor(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=self._device)

        return GroupPlan(
            written=self._cache.rows(tensor(batch.slots(group))),
            window_tokens=batch.groups[group].window_tokens,
            parts=tuple(
                Part(
                    start=batch.query_starts[request],
                    past=context - batch.query_tokens(request),
                    context=context,
                    first=batch.groups[group].released[request] * batch.block_tokens,
                    blocks=tensor([*batch.used_blocks(group, request)]),
                )
                for request, context in enumerate(batch.context_tokens)
            ),
        )

    def _request(self, slot: int, part: Part, queries: Tensor, window: int | None) -> Tensor:
        """Return what one request's queries [chunk, heads, head_dim] see, in the same shape."""
        kv_heads = self._cache.slots[slot].shape[2]
        # [blocks, 2, kv_heads, block_tokens, head_dim] -> [2, kv_heads, tokens, head_dim]
        held = self._cache.slots[slot][part.blocks].permute(1, 2, 0, 3, 4).flatten(2, 3).float()
        # Tiles begin at multiples of their size in the text; what is not there is masked, and 0.
        first = part.first // KEY_TILE * KEY_TILE
        tokens = -(-part.context // KEY_TILE) * KEY_TILE - first
        held = held[:, :, : part.context - part.first]
        before = part.first - first
        keys, values = F.pad(held, (0, 0, before, tokens - before - held.shape[2]))
        top = part.past // QUERY_TILE * QUERY_TILE
        rows = -(-part.context // QUERY_TILE) * QUERY_TILE - top
        tiles = queries.new_zeros(rows, *queries.shape[1:])
        tiles[part.past - top : part.context - top] = queries
        # Per tile and key-value head: the rows of its query heads, one tile after the other.
        size = queries.shape[1] // kv_heads
        grouped = tiles.view(-1, QUERY_TILE, kv_heads, size, queries.shape[2])
        grouped = grouped.permute(0, 2, 3, 1, 4).flatten(2, 3).contiguous()
        seen = torch.stack(
            [
                self._tile(tile, top + number * QUERY_TILE, keys, values, first, window)
                for number, tile in enumerate(grouped)
            ]
        )
        seen = seen.view(-1, kv_heads, size, QUERY_TILE, queries.shape[2]).permute(0, 3, 1, 2, 4)
        return seen.reshape(tiles.shape)[part.past - top : part.context - top]

    def _tile(
        self,
        queries: Tensor,
        position: int,
        keys: Tensor,
        values: Tensor,
        first: int,
        window: int | None,
    ) -> Tensor:
        """Return what one tile of queries sees: [kv_heads, group * QUERY_TILE, head_dim].

        position      of the tile's first query
        keys, values  [kv_heads, tokens, head_dim], the first of which is at position `first`
        """
        places = torch.arange(position, position + QUERY_TILE, device=self._device)
        places = places.repeat(queries.shape[1] // QUERY_TILE)[:, None]
        # Softmax as it goes along: the highest score, the sum and the weighed values up to here.
        highest = queries.new_full((*queries.shape[:2], 1), torch.finfo(torch.float32).min)
        total = torch.zeros_like(highest)
        seen = torch.zeros_like(queries)
        for start in range(0, keys.shape[1], KEY_TILE):
            tile = slice(start, start + KEY_TILE)
            scores = queries @ keys[:, tile].transpose(1, 2).contiguous() * self._settings.scale
            if self._settings.softcap is not None:
                scores = self._settings.softcap * torch.tanh(scores / self._settings.softcap)
            others = torch.arange(first + start, first + start + KEY_TILE, device=self._device)
            hidden = others > places
            if window is not None:
                hidden |= others <= places - window
            scores = scores.masked_fill_(hidden, float("-inf"))
            risen = torch.maximum(highest, scores.amax(dim=-1, keepdim=True))
            weights = torch.exp(scores - risen)
            fade = torch.exp(highest - risen)
            total = total * fade + weights.sum(dim=-1, keepdim=True)
            seen = seen * fade + weights @ values[:, tile].contiguous()
            highest = risen
        return seen / total.clamp_min(torch.finfo(torch.float32).tiny)
