"""Paged attention with Triton kernels: prompts' chunks and decoding requests in one step."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import triton
from torch import Tensor

from llm_engine.attention.backend import AttentionSettings
from llm_engine.attention.batch import StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.attention.staging import to_device
from llm_engine.attention.triton_kernels import attend_kernel, merge_kernel, store_kernel
from llm_engine.attention.triton_plan import (
    NARROW_ROWS,
    GroupLaunches,
    Launch,
    TileShape,
    plan_group,
    tile_shapes,
)

LOG2_E: Final = math.log2(math.e)
INTERPRETED_PROCESSORS: Final = 4
"""What the interpreter counts as: few, so that it runs small cases in splits too."""


@dataclass(frozen=True)
class PlacedLaunch:
    """A launch whose tiles are on the device."""

    tiles: Tensor
    shape: TileShape
    splits: int


@dataclass(frozen=True)
class GroupPlan:
    """What a layer group's kernels read, on the device; see `triton_plan.GroupLaunches`."""

    slots: Tensor
    tables: Tensor
    window: int
    launches: tuple[PlacedLaunch, ...]


class TritonAttention:
    """Attention of a step's queries over the cache on an NVIDIA GPU, or in Triton's interpreter.

    shapes  of tiles, for few query rows and for many; None: those of `tile_shapes`
    """

    def __init__(
        self,
        cache: KVCache,
        settings: AttentionSettings,
        shapes: tuple[TileShape, TileShape] | None = None,
    ) -> None:
        _, _, kv_heads, _, head_dim = cache.slots[0].shape
        self._cache = cache
        self.device = cache.slots[0].device
        self.block_tokens = cache.block_tokens
        self.kv_heads = kv_heads
        self.windows = tuple(group.window_tokens for group in cache.groups)
        self._heads = (kv_heads, settings.query_heads // kv_heads)
        self.processors = (
            torch.cuda.get_device_properties(self.device).multi_processor_count
            if self.device.type == "cuda"
            else INTERPRETED_PROCESSORS
        )
        dtype = cache.slots[0].dtype
        self.shapes = shapes or tile_shapes(self._heads[1], head_dim, dtype.itemsize)
        cap = settings.softcap
        self._scale = settings.scale * LOG2_E if cap is None else settings.scale / cap
        self._cap = 0.0 if cap is None else cap * LOG2_E
        padded_dim = max(NARROW_ROWS, triton.next_power_of_2(head_dim))
        self._dims = {"HEAD_DIM": head_dim, "PADDED_DIM": padded_dim}
        self._stored = {
            **self._dims,
            "BLOCK_TOKENS": cache.block_tokens,
            "HEADS": 2 * kv_heads,
            "PADDED_HEADS": triton.next_power_of_2(2 * kv_heads),
        }
        self._merged = {**self._dims, "KV_HEADS": kv_heads, "GROUP": self._heads[1]}
        self._attended = {
            **self._merged,
            "BLOCK_TOKENS": cache.block_tokens,
            "HAS_CAP": cap is not None,
            # tf32 would be 10 times as fast and 1,000 times less exact: who asks for fp32 wants it.
            "PRECISION": "ieee" if dtype == torch.float32 else "tf32",
        }

    def plan(
        self, batch: StepBatch, left_out: frozenset[int] = frozenset()
    ) -> tuple[GroupPlan, ...]:
        """Cut the step's queries into tiles, and copy what describes them to the device.

        left_out  requests that somebody else attends to; their keys and values are stored
        """
        attended = np.array([request not in left_out for request in range(batch.requests)])
        groups = [
            plan_group(batch, group, attended, self._heads, self.shapes, self.processors)
            for group in range(len(batch.groups))
        ]
        arrays = [
            array
            for group in groups
            for array in (group.slots, group.tables, *(launch.tiles for launch in group.launches))
        ]
        placed = iter(to_device(arrays, self.device))
        return tuple(
            GroupPlan(
                slots=next(placed),
                tables=next(placed),
                window=tables.window_tokens or 0,
                launches=tuple(_place(launch, next(placed)) for launch in group.launches),
            )
            for group, tables in zip(groups, batch.groups, strict=True)
        )

    def launches(self, batch: StepBatch, group: int, splits: int) -> GroupLaunches:
        """Cut one group's decoding requests into launches of so many splits, on the CPU."""
        attended = np.full(batch.requests, True)
        return plan_group(batch, group, attended, self._heads, self.shapes, self.processors, splits)

    def attend(
        self, layer: int, queries: Tensor, keys_values: Tensor, plan: tuple[GroupPlan, ...]
    ) -> Tensor:
        """Store the step's keys and values, and return what its queries see.

        queries      [tokens, heads, head_dim], of which each token's heads are contiguous
        keys_values  [tokens, 2, kv_heads, head_dim], contiguous
        returns      [tokens, heads, head_dim]
        """
        number, slot = self._cache.places[layer]
        group, cache = plan[number], self._cache.slots[slot]
        store_kernel[(len(keys_values),)](cache, keys_values, group.slots, **self._stored)
        out = queries.new_empty(queries.shape)
        for launch in group.launches:
            self._launch(launch, group, cache, queries, out)
        return out

    def _launch(
        self, launch: PlacedLaunch, group: GroupPlan, cache: Tensor, queries: Tensor, out: Tensor
    ) -> None:
        shape, splits, kv_heads = launch.shape, launch.splits, self.kv_heads
        tiles = len(launch.tiles)
        parts = weights = out
        if splits > 1:
            rows = (tiles, kv_heads, splits, shape.rows)
            parts = out.new_empty((*rows, self._dims["PADDED_DIM"]), dtype=torch.float32)
            weights = out.new_empty(rows, dtype=torch.float32)
        attend_kernel[(tiles, kv_heads, splits)](
            parts,
            weights,
            queries,
            cache,
            group.tables,
            launch.tiles,
            queries.stride(0),
            self._scale,
            self._cap,
            WINDOW=group.window,
            IS_SPLIT=splits > 1,
            ROWS=shape.rows,
            KEYS=shape.keys,
            num_warps=shape.warps,
            num_stages=shape.stages,
            **self._attended,
        )
        if splits > 1:
            merge_kernel[(tiles, kv_heads, shape.rows)](
                out,
                parts,
                weights,
                launch.tiles,
                splits,
                ROWS=shape.rows,
                PADDED_SPLITS=triton.next_power_of_2(splits),
                num_warps=2,
                **self._merged,
            )


def _place(launch: Launch, tiles: Tensor) -> PlacedLaunch:
    return PlacedLaunch(tiles, launch.shape, launch.splits)
