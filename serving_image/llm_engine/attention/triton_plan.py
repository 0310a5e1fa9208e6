"""How a step's queries are cut into tiles, and tiles into splits of their keys. No Triton."""

from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llm_engine.attention.batch import StepBatch

NARROW_ROWS: Final = 16
"""Rows of the smallest matrix product: what a decoding request's heads rarely fill."""
LEAST_SPLIT_TOKENS: Final = 128
"""Keys below which one more split costs more than it saves."""
MOST_SPLITS: Final = 64
SPLIT_FIELD: Final = 4
PROGRAMS_PER_PROCESSOR: Final = 4
"""Programs that one multiprocessor runs at once, roughly: fewer tiles than that are split."""


@dataclass(frozen=True)
class TileShape:
    """How large one program's piece of work is.

    rows  query tokens times the query heads of a key-value head
    keys  keys per turn of its loop
    """

    rows: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Launch:
    """Tiles of one shape.

    tiles   int32 [tiles, 5], see `triton_kernels`
    splits  of each tile's keys
    """

    tiles: NDArray[np.int32]
    shape: TileShape
    splits: int


@dataclass(frozen=True)
class GroupLaunches:
    """All that a layer group's kernels read.

    slots   int32 [tokens]: where each token's key and value go
    tables  int32: the block tables of all requests end to end
    """

    slots: NDArray[np.int32]
    tables: NDArray[np.int32]
    launches: tuple[Launch, ...]


def tile_shapes(group: int, head_dim: int, itemsize: int) -> tuple[TileShape, TileShape]:
    """Return the shapes for requests with few query rows, and for prompts' chunks.

    group  query heads per key-value head
    """
    least = max(NARROW_ROWS, _power_of_2(group))
    dim = max(NARROW_ROWS, _power_of_2(head_dim))
    if itemsize > 2:  # fp32: no tensor cores, and twice the memory per key
        keys = 64 if dim <= 64 else 32
        return TileShape(least, keys, 4, 2), TileShape(max(least, 32), keys, 4, 2)
    if dim > 128:
        return TileShape(least, 32, 4, 3), TileShape(max(least, 64), 32, 4, 2)
    return TileShape(least, 64, 4, 3), TileShape(max(least, 128), 64, 8, 5)


def plan_group(
    batch: StepBatch,
    group: int,
    attended: NDArray[np.bool_],
    heads: tuple[int, int],
    shapes: tuple[TileShape, TileShape],
    processors: int,
    splits: int | None = None,
) -> GroupLaunches:
    """Cut one layer group's work into launches.

    attended    [requests]: who gets tiles; the others only have their keys and values stored
    heads       key-value heads, and query heads of each
    shapes      for few rows and for many, from `tile_shapes`
    processors  multiprocessors of the device
    splits      of every tile's keys; None: as many as pay
    """
    kv_heads, sharing = heads
    starts = np.asarray(batch.query_starts, dtype=np.int64)
    counts = np.diff(starts)
    past = np.asarray(batch.context_tokens, dtype=np.int64) - counts
    used = [batch.used_blocks(group, request) for request in range(batch.requests)]
    tables = np.fromiter(chain.from_iterable(used), dtype=np.int32)
    firsts = np.cumsum([0, *map(len, used[:-1])]) - np.asarray(batch.groups[group].released)
    requests = np.stack((starts[:-1], counts, past, firsts, np.zeros_like(past)), axis=1)
    narrow = counts * sharing <= shapes[0].rows
    window = batch.groups[group].window_tokens
    launches = []
    for rows, shape in zip((narrow, ~narrow), shapes, strict=True):
        if (attended & rows).any():
            tiles = _tiles(requests[attended & rows], shape.rows // sharing, window)
            most_keys = int(_keys(tiles, window).max())
            wanted = splits or _splits(len(tiles) * kv_heads, most_keys, processors)
            tiles[:, SPLIT_FIELD] = _split_tokens(most_keys, wanted, shape.keys)
            count = splits or -(-most_keys // tiles[0, SPLIT_FIELD])
            launches.append(Launch(tiles, shape, int(count)))
    return GroupLaunches(_slots(batch, requests, tables), tables, tuple(launches))


def _tiles(requests: NDArray[np.int64], tokens: int, window: int | None) -> NDArray[np.int32]:
    """Cut requests into tiles of at most so many tokens, those with the most keys first.

    requests  [requests, 5] as tiles are, the keys of a split still to come
    """
    pieces = -(-requests[:, 1] // tokens)
    tiles = np.repeat(requests, pieces, axis=0)
    number = np.arange(len(tiles)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    done = number * tokens
    tiles[:, 0] += done
    tiles[:, 2] += done
    tiles[:, 1] = np.minimum(tiles[:, 1] - done, tokens)
    return tiles[np.argsort(-_keys(tiles, window), kind="stable")].astype(np.int32)


def _keys(tiles: NDArray[np.integer], window: int | None) -> NDArray[np.integer]:
    """Return the keys that each tile reads."""
    position, end = tiles[:, 2], tiles[:, 2] + tiles[:, 1]
    return end if window is None else end - np.maximum(position - window + 1, 0)


def fixed_splits(tiles: int, kv_heads: int, processors: int) -> int:
    """Return the splits that keep every processor busy, however few keys there are."""
    return max(1, min(MOST_SPLITS, PROGRAMS_PER_PROCESSOR * processors // (tiles * kv_heads)))


def _splits(programs: int, most_keys: int, processors: int) -> int:
    """Return the splits that pay; `programs` is how many there are without."""
    wanted = PROGRAMS_PER_PROCESSOR * processors // programs
    return max(1, min(wanted, MOST_SPLITS, most_keys // LEAST_SPLIT_TOKENS))


def _split_tokens(most_keys: int, splits: int, keys: int) -> int:
    """Return the keys of a split, whole turns of a program's loop."""
    if splits == 1:
        return most_keys
    return max(LEAST_SPLIT_TOKENS, -(-most_keys // (splits * keys)) * keys)


def _slots(
    batch: StepBatch, requests: NDArray[np.int64], tables: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return where each token's key and value go."""
    first_row, counts, past, table, _ = requests.T
    positions = np.arange(batch.query_starts[-1]) + np.repeat(past - first_row, counts)
    blocks = tables[np.repeat(table, counts) + positions // batch.block_tokens]
    slots: NDArray[np.integer] = blocks * batch.block_tokens + positions % batch.block_tokens
    return slots.astype(np.int32)


def _power_of_2(count: int) -> int:
    return 1 << (count - 1).bit_length()
