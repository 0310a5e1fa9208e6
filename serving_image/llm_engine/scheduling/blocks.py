"""Who holds which block of the KV cache. Knows numbers, not tensors."""

from collections.abc import Iterable


class OutOfBlocks(Exception):
    """More blocks were asked for than are free; the plan that led here was wrong."""


class BlockPool:
    """A fixed number of blocks, each free or held by one or more owners.

    A block is free exactly when its count of owners is zero.
    """

    def __init__(self, blocks: int) -> None:
        if blocks < 1:
            raise ValueError(f"a pool needs at least one block, not {blocks}")
        self._owners = [0] * blocks
        # Taken from the end: low numbers first, so that a quiet engine touches little memory.
        self._free = list(range(blocks - 1, -1, -1))

    @property
    def blocks(self) -> int:
        """Count all blocks."""
        return len(self._owners)

    @property
    def free_blocks(self) -> int:
        """Count blocks that nobody holds."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """Return the share of blocks that are held, 0-1."""
        return 1.0 - self.free_blocks / self.blocks

    def take(self, count: int) -> list[int]:
        """Hand out `count` blocks with one owner each, or raise OutOfBlocks and change nothing."""
        if count > len(self._free):
            raise OutOfBlocks(f"{count} blocks wanted, {len(self._free)} of {self.blocks} free")
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._owners[block] = 1
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Add one owner to each of these held blocks."""
        for block in blocks:
            if self._owners[block] == 0:
                raise ValueError(f"block {block} is free: nothing to share")
            self._owners[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Remove one owner from each of these blocks; the last one frees it."""
        for block in blocks:
            if self._owners[block] == 0:
                raise ValueError(f"block {block} is already free")
            self._owners[block] -= 1
            if self._owners[block] == 0:
                self._free.append(block)
