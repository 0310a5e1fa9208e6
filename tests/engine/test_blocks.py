"""Blocks are conserved: each is free or has owners, whatever is asked in whatever order."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from hypothesis.strategies import integers

from llm_engine.scheduling.blocks import BlockPool, OutOfBlocks

BLOCKS = 12


class PoolMachine(RuleBasedStateMachine):
    """Takes, shares and releases at random, and keeps its own books."""

    holdings = Bundle("holdings")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(BLOCKS)
        self.owners: Counter[int] = Counter()

    @rule(target=holdings, count=integers(0, BLOCKS + 2))
    def take(self, count: int) -> list[int]:
        free = self.pool.free_blocks
        try:
            taken = self.pool.take(count)
        except OutOfBlocks:
            assert count > free
            return []
        assert len(set(taken)) == count
        assert not any(self.owners[block] for block in taken), "a held block was handed out"
        self.owners.update(taken)
        return taken

    @rule(target=holdings, blocks=holdings)
    def share(self, blocks: list[int]) -> list[int]:
        if not all(self.owners[block] for block in blocks):
            return []
        self.pool.share(blocks)
        self.owners.update(blocks)
        return blocks

    @rule(blocks=consumes(holdings))
    def release(self, blocks: list[int]) -> None:
        self.pool.release(blocks)
        self.owners.subtract(blocks)

    @invariant()
    def every_block_is_free_or_owned(self) -> None:
        owned = sum(1 for count in self.owners.values() if count > 0)
        assert self.pool.free_blocks + owned == BLOCKS
        assert self.pool.usage == pytest.approx(owned / BLOCKS)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase


def test_a_block_cannot_be_released_more_often_than_it_is_held() -> None:
    pool = BlockPool(2)
    held = pool.take(1)
    pool.release(held)
    with pytest.raises(ValueError, match="already free"):
        pool.release(held)


def test_a_free_block_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="nothing to share"):
        BlockPool(2).share([0])


def test_a_pool_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BlockPool(0)
