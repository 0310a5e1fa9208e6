"""Plans of decoding steps whose tensors never move: what a captured graph reads at each replay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from llm_engine.attention.batch import StepBatch
from llm_engine.attention.triton_paged import GroupPlan, PlacedLaunch, TritonAttention
from llm_engine.attention.triton_plan import SPLIT_FIELD, fixed_splits

TILE_FIELDS: Final = SPLIT_FIELD + 1
NO_SLOT: Final = -1
"""Where a row of no request stores its keys and values: nowhere."""


@dataclass(frozen=True)
class FixedStep:
    """What a step of `size` rows reads; rows of no request compute noise that nobody reads.

    words, positions, rows  int32 [size], as `Decoder.hidden` takes them
    """

    size: int
    words: Tensor
    positions: Tensor
    rows: Tensor
    plan: tuple[GroupPlan, ...]


class FixedPlans:
    """Steps of up to `most_requests` requests with one token each, over the same memory.

    most_blocks  of one request, in any layer group
    """

    def __init__(self, attention: TritonAttention, most_requests: int, most_blocks: int) -> None:
        self._attention = attention
        windows = attention.windows
        # Words, positions, rows; then slots and tiles of each group.
        self._most = most_requests
        columns = 3 + (1 + TILE_FIELDS) * len(windows)
        self._numbers = _Mirror(columns * most_requests, attention.device)
        self._tables = [_Mirror(most_requests * most_blocks, attention.device) for _ in windows]
        self._numbers.host.reshape(columns, -1)[2] = np.arange(most_requests)

    def step(self, size: int) -> FixedStep:
        """Return the tensors of steps of this size; `fill` gives them their values."""
        words, positions, rows = (self._column(column)[:size] for column in range(3))
        groups = []
        for group, window in enumerate(self._attention.windows):
            slots, tiles = self._slots(group), self._tiles(group)
            launch = PlacedLaunch(
                tiles=self._numbers.device[tiles][: size * TILE_FIELDS].view(size, TILE_FIELDS),
                shape=self._attention.shapes[0],
                splits=self._splits(size),
            )
            table = self._tables[group].device
            groups.append(
                GroupPlan(self._numbers.device[slots][:size], table, window or 0, (launch,))
            )
        return FixedStep(size, words, positions, rows, tuple(groups))

    def fill(self, size: int, words: Sequence[int], batch: StepBatch) -> None:
        """Copy a step's numbers to where the tensors of this size read them."""
        host, count = self._numbers.host, len(words)
        host[:count] = words
        host[self._most : self._most + count] = np.asarray(batch.context_tokens) - 1
        for group in range(len(self._attention.windows)):
            launches = self._attention.launches(batch, group, self._splits(size))
            slots, tiles = host[self._slots(group)], host[self._tiles(group)]
            slots[:count], slots[count:] = launches.slots, NO_SLOT
            (launch,) = launches.launches
            tiles[: launch.tiles.size], tiles[launch.tiles.size :] = launch.tiles.reshape(-1), 0
            self._tables[group].host[: len(launches.tables)] = launches.tables
            self._tables[group].copy(len(launches.tables))
        self._numbers.copy(len(host))

    def _splits(self, size: int) -> int:
        return fixed_splits(size, self._attention.kv_heads, self._attention.processors)

    def _column(self, column: int) -> Tensor:
        return self._numbers.device[column * self._most : (column + 1) * self._most]

    def _slots(self, group: int) -> slice:
        first = (3 + group * (1 + TILE_FIELDS)) * self._most
        return slice(first, first + self._most)

    def _tiles(self, group: int) -> slice:
        first = (4 + group * (1 + TILE_FIELDS)) * self._most
        return slice(first, first + TILE_FIELDS * self._most)


class _Mirror:
    """int32 on the device, and the pinned memory that its values come from.

    Filled once a step: the step before has handed out its tokens by then, so its copies are done.
    """

    def __init__(self, length: int, device: torch.device) -> None:
        self._staged = torch.zeros(length, dtype=torch.int32, pin_memory=device.type == "cuda")
        self.host = self._staged.numpy()
        self.device = torch.zeros(length, dtype=torch.int32, device=device)

    def copy(self, length: int) -> None:
        """Copy the first numbers to the device."""
        self.device[:length].copy_(self._staged[:length], non_blocking=True)
