"""Paged decoding with xformers' split-KV kernel; whatever it cannot do, our Triton kernels do.

xformers wants keys as one line of pages. In our cache each head of a block is contiguous, so each
(request, key-value head) is a text of its own here, whose pages are `block * 2 * kv_heads + head`;
values lie `kv_heads` pages behind their keys, and are found through a view that starts there.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_engine.attention.backend import AttentionSettings
from llm_engine.attention.batch import StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.attention.staging import to_device
from llm_engine.attention.triton_paged import GroupPlan, TritonAttention

HEAD_DIMS: Final = frozenset({16, 32, 64, 128, 256, 512})
MOST_KEYS: Final = 64
"""Keys that its kernel takes at once, where a block has as many."""
LEAST_KEYS: Final = 16


@dataclass(frozen=True)
class XformersPlan:
    """What all layers of a step share.

    stored  per layer group, where keys and values go, and all that Triton attends to
    rows    [requests]: rows of the requests that xformers decodes; None: it decodes none
    biases  per layer group, their pages as xformers wants to be told
    """

    stored: tuple[GroupPlan, ...]
    rows: Tensor | None = None
    biases: tuple[Any, ...] = ()


class XformersAttention:
    """Attention of a step's queries over the cache on an NVIDIA GPU."""

    def __init__(self, cache: KVCache, settings: AttentionSettings) -> None:
        from xformers.ops import fmha

        first = cache.slots[0]
        _, _, self._kv_heads, size, self._head_dim = first.shape
        self._triton = TritonAttention(cache, settings)
        self._cache = cache
        self._scale = settings.scale
        keys = min(MOST_KEYS, size & -size)  # a power of 2 that divides a block
        self._decodes = (
            keys >= LEAST_KEYS
            and self._head_dim in HEAD_DIMS
            and settings.softcap is None
            and first.dtype in (torch.bfloat16, torch.float16)
        )
        self._operator: Any = type("PagedFwOp", (fmha.triton_splitk.FwOp,), {"BLOCK_N": keys})
        self._inputs = fmha.Inputs
        self._unpaged = fmha.attn_bias.BlockDiagonalGappyKeysMask
        self._paged = fmha.attn_bias.PagedBlockDiagonalGappyKeysMask

    def plan(self, batch: StepBatch) -> XformersPlan:
        """List the pages of decoding requests, and prepare Triton's launches for all others."""
        if not self._decodes:
            return XformersPlan(self._triton.plan(batch))
        decoding = [r for r in range(batch.requests) if batch.query_tokens(r) == 1]
        stored = self._triton.plan(batch, frozenset(decoding))
        if not decoding:
            return XformersPlan(stored)
        rows = np.asarray([batch.query_starts[r] for r in decoding], dtype=np.int32)
        groups = range(len(batch.groups))
        pages = [self._pages(batch, group, decoding) for group in groups]
        placed = to_device([rows, *pages], self._cache.slots[0].device)
        biases = tuple(self._bias(batch, group, decoding, placed[1 + group]) for group in groups)
        return XformersPlan(stored, placed[0], biases)

    def attend(
        self, layer: int, queries: Tensor, keys_values: Tensor, plan: XformersPlan
    ) -> Tensor:
        """Store the step's keys and values, and return what its queries see."""
        out = self._triton.attend(layer, queries, keys_values, plan.stored)
        if plan.rows is not None:
            group, slot = self._cache.places[layer]
            out[plan.rows] = self._decode(slot, queries[plan.rows], plan.biases[group])
        return out

    def _decode(self, slot: int, queries: Tensor, bias: Any) -> Tensor:
        """Attend with one token of each request: queries [requests, heads, head_dim]."""
        lines = self._cache.slots[slot].view(-1, self._head_dim)
        behind = self._kv_heads * self._cache.block_tokens
        shape = (1, len(lines) - behind, 1, queries.shape[1] // self._kv_heads, self._head_dim)
        keys = lines[:-behind, None, None].expand(shape[1:])[None]
        values = lines[behind:, None, None].expand(shape[1:])[None]
        inputs = self._inputs(
            query=queries.reshape(1, -1, 1, shape[3], self._head_dim),
            key=keys,
            value=values,
            attn_bias=bias,
            scale=self._scale,
        )
        # Not through xformers' own door: it refuses where its compiled extensions do not fit torch,
        # and this operator needs none of them.
        seen: Tensor = self._operator.apply(inputs, needs_gradient=False)[0]
        return seen.view(queries.shape)

    def _pages(self, batch: StepBatch, group: int, decoding: list[int]) -> NDArray[np.int32]:
        """Return the pages of each head's text: [requests * kv_heads, most blocks]."""
        used = [batch.used_blocks(group, r) for r in decoding]
        # Padding names block 0, which is always there; nothing of it is read.
        tables = np.zeros((len(used), max(map(len, used))), dtype=np.int32)
        for row, blocks in zip(tables, used, strict=True):
            row[: len(blocks)] = blocks
        heads = np.arange(self._kv_heads, dtype=np.int32)
        pages = tables[:, None] * np.int32(2 * self._kv_heads) + heads[:, None]
        return pages.reshape(-1, tables.shape[1])

    def _bias(self, batch: StepBatch, group: int, decoding: list[int], pages: Tensor) -> Any:
        tables, size = batch.groups[group], batch.block_tokens
        # Built as if each text had a stretch of equal length of its own: 0.0.35 cannot build a
        # paged description from its numbers.
        stretch = pages.shape[1] * size
        firsts: list[int] = []
        lengths: list[int] = []
        for request in decoding:
            context = batch.context_tokens[request]
            seen = min(context, tables.window_tokens or context)
            first = context - seen - tables.released[request] * size
            for _ in range(self._kv_heads):
                firsts.append(len(firsts) * stretch + first)
                lengths.append(seen)
        flat = self._unpaged.from_seqlens(
            q_seqlen=[1] * len(lengths),
            kv_seqstarts=[*firsts, len(firsts) * stretch],
            kv_seqlen=lengths,
            device=pages.device,
        )
        return flat.make_paged(pages, size, stretch, self._paged)
