"""Who holds which block of the KV cache, and which text each one holds. Knows numbers, not tensors.

Every operation takes the same time however many blocks there are.
"""

from collections import OrderedDict
from collections.abc import Iterable

BlockKey = tuple[int, bytes]
"""A layer group, and the digest of all tokens from the text's beginning to the block's end."""


class OutOfBlocks(Exception):
    """More blocks were asked for than are free; the plan that led here was wrong."""


class BlockPool:
    """A fixed number of blocks, each free or held by one or more owners.

    A block is free exactly when its count of owners is zero. A free block that is remembered by its
    key can still be shared, until it is taken for something else: the longest unused goes first.

    keeps_prefixes  False remembers nothing
    """

    def __init__(self, blocks: int, keeps_prefixes: bool = True) -> None:
        if blocks < 1:
            raise ValueError(f"a pool needs at least one block, not {blocks}")
        self.keeps_prefixes = keeps_prefixes
        self._owners = [0] * blocks
        # Taken from the end: low numbers first, so that a quiet engine touches little memory.
        self._blank = list(range(blocks - 1, -1, -1))
        self._unused: OrderedDict[int, None] = OrderedDict()  # free, remembered, oldest first
        self._keys: list[BlockKey | None] = [None] * blocks
        self._remembered: dict[BlockKey, int] = {}

    @property
    def blocks(self) -> int:
        """Count all blocks."""
        return len(self._owners)

    @property
    def free_blocks(self) -> int:
        """Count blocks that nobody holds."""
        return len(self._blank) + len(self._unused)

    @property
    def usage(self) -> float:
        """Return the share of blocks that are held, 0-1."""
        return 1.0 - self.free_blocks / self.blocks

    def owners(self, block: int) -> int:
        """Count who holds this block."""
        return self._owners[block]

    def find(self, key: BlockKey) -> int | None:
        """Return the block that holds this text, held or not."""
        return self._remembered.get(key)

    def take(self, count: int) -> list[int]:
        """Hand out `count` blocks with one owner each, or raise OutOfBlocks and change nothing."""
        if count > self.free_blocks:
            raise OutOfBlocks(f"{count} blocks wanted, {self.free_blocks} of {self.blocks} free")
        taken = [self._blank.pop() if self._blank else self._forget() for _ in range(count)]
        for block in taken:
            self._owners[block] = 1
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Add one owner to each of these blocks, which are held or remembered."""
        for block in blocks:
            if self._owners[block] == 0:
                if block not in self._unused:
                    raise ValueError(f"block {block} is free: nothing to share")
                del self._unused[block]
            self._owners[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Remove one owner from each of these blocks; the last one frees it.

        Of remembered blocks, those released first will be the first to be taken again.
        """
        for block in blocks:
            if self._owners[block] == 0:
                raise ValueError(f"block {block} is already free")
            self._owners[block] -= 1
            if self._owners[block] == 0:
                if self._keys[block] is None:
                    self._blank.append(block)
                else:
                    self._unused[block] = None

    def remember(self, block: int, key: BlockKey) -> None:
        """Let others find this held block, which is full and will not be written again.

        Of blocks with the same text the first stays the one that is found.
        """
        if self._owners[block] == 0:
            raise ValueError(f"block {block} is free: nothing to remember")
        if self.keeps_prefixes and self._keys[block] is None and key not in self._remembered:
            self._keys[block] = key
            self._remembered[key] = block

    def _forget(self) -> int:
        block, _ = self._unused.popitem(last=False)
        key = self._keys[block]
        assert key is not None, "only remembered blocks are kept"
        del self._remembered[key]
        self._keys[block] = None
        return block
