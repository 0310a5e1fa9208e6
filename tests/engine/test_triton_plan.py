"""How a step is cut into tiles and splits: numbers only."""

import numpy as np
import pytest

from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.triton_plan import GroupLaunches, TileShape, plan_group, tile_shapes

NARROW, WIDE = TileShape(16, 64, 4, 3), TileShape(64, 64, 8, 3)
FIRST_ROW, TOKENS, POSITION, TABLE, SPLIT = range(5)


def planned(
    *requests: tuple[int, int],
    heads: tuple[int, int] = (2, 4),
    window: int | None = None,
    released: tuple[int, ...] | None = None,
    processors: int = 1,
) -> GroupLaunches:
    """Plan requests of (past, tokens) whose blocks of 16 are numbered from 0 on, end to end."""
    released = released or (0,) * len(requests)
    counts = [count for _, count in requests]
    tables, first = [], 0
    for (past, count), gone in zip(requests, released, strict=True):
        blocks = -(-(past + count) // 16) - gone
        tables.append(range(first, first + blocks))
        first += blocks
    batch = StepBatch(
        query_starts=tuple(sum(counts[:end]) for end in range(len(counts) + 1)),
        context_tokens=tuple(past + count for past, count in requests),
        groups=(GroupTables(window, released, tuple(tables)),),
        block_tokens=16,
    )
    return plan_group(batch, 0, np.full(len(requests), True), heads, (NARROW, WIDE), processors)


def test_decoding_requests_and_chunks_get_tiles_of_their_own_size() -> None:
    narrow, wide = planned((40, 1), (0, 40), (90, 1)).launches
    assert (narrow.shape, wide.shape) == (NARROW, WIDE)
    # The longest first, so that the last tile to end is a short one.
    assert narrow.tiles[:, :SPLIT].tolist() == [[41, 1, 90, 6], [0, 1, 40, 0]]
    # 64 rows hold 16 tokens of 4 heads.
    assert sorted(wide.tiles[:, FIRST_ROW]) == [1, 17, 33]
    assert sorted(wide.tiles[:, TOKENS]) == [8, 16, 16]
    assert sorted(wide.tiles[:, POSITION]) == [0, 16, 32]


def test_every_row_is_in_exactly_one_tile() -> None:
    plan = planned((3, 100), (40, 1), (0, 7), (11, 4), (0, 65))
    rows = [
        row
        for launch in plan.launches
        for tile in launch.tiles
        for row in range(tile[FIRST_ROW], tile[FIRST_ROW] + tile[TOKENS])
    ]
    assert sorted(rows) == list(range(177))


def test_slots_follow_the_block_tables() -> None:
    assert planned((15, 3), (0, 2)).slots.tolist() == [15, 16, 17, 32, 33]


def test_blocks_given_back_move_the_table_not_the_positions() -> None:
    plan = planned((100, 1), (100, 1), window=20, released=(5, 2))
    assert plan.tables.tolist() == list(range(7))
    assert sorted(plan.launches[0].tiles[:, TABLE]) == [-5, 0]
    assert plan.slots.tolist() == [1 * 16 + 4, 6 * 16 + 4]


@pytest.mark.parametrize(
    ("requests", "window", "processors", "expected"),
    [
        pytest.param([(4000, 1)], None, 132, (21, 192), id="one long text: as many as pay"),
        pytest.param([(4000, 1)], 512, 132, (4, 128), id="a window has fewer keys"),
        pytest.param([(4000, 1)] * 300, None, 132, (1, 4001), id="enough tiles already"),
        pytest.param([(100, 1)], None, 132, (1, 101), id="too short to pay"),
        pytest.param([(40_000, 1)], None, 132, (63, 640), id="never too many to merge"),
    ],
)
def test_splits(
    requests: list[tuple[int, int]],
    window: int | None,
    processors: int,
    expected: tuple[int, int],
) -> None:
    (launch,) = planned(*requests, window=window, processors=processors).launches
    assert (launch.splits, launch.tiles[0, SPLIT]) == expected
    reach = launch.splits * launch.tiles[0, SPLIT]
    assert reach >= min(max(past + 1 for past, _ in requests), window or reach)


@pytest.mark.parametrize("group", [1, 3, 7, 16, 32, 71])
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_a_tile_holds_at_least_one_token_of_all_heads(group: int, head_dim: int) -> None:
    for itemsize in (2, 4):
        for shape in tile_shapes(group, head_dim, itemsize):
            assert shape.rows >= max(16, group)
            assert shape.rows & (shape.rows - 1) == 0


def test_numbers_are_as_small_as_the_kernels_expect() -> None:
    plan = planned((3, 100), (40, 1))
    arrays = [plan.slots, plan.tables, *(launch.tiles for launch in plan.launches)]
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}
