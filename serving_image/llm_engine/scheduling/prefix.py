"""Find blocks that already hold the beginning of a text, whoever computed them."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.tables import BlockTable, unseen_blocks


@dataclass(frozen=True)
class Prefix:
    """A computed beginning of a text: whole blocks, found in the pool.

    tokens  how many tokens it covers
    tables  per layer group the blocks that hold them, without those that slid out of its window
    """

    tokens: int
    tables: tuple[BlockTable, ...]

    @property
    def blocks(self) -> list[int]:
        """List the blocks of all tables."""
        return [block for table in self.tables for block in table.blocks]


def extend_digests(
    digests: list[bytes], tokens: Sequence[int], block_tokens: int, salt: str
) -> None:
    """Append the digest of every whole block of `tokens` that has none yet.

    Each digest covers the text from its beginning to the block's end, through the digest before
    it. Different salts never give the same: tenants cannot probe what others have asked.
    """
    before = digests[-1] if digests else sha256(salt.encode()).digest()
    for start in range(len(digests) * block_tokens, len(tokens) - block_tokens + 1, block_tokens):
        content = array("q", tokens[start : start + block_tokens])
        before = sha256(before + content.tobytes()).digest()
        digests.append(before)


def longest_prefix(
    pool: BlockPool,
    digests: Sequence[bytes],
    windows: Sequence[int | None],
    block_tokens: int,
) -> Prefix:
    """Return the longest beginning that the pool still holds, as far as the digests reach.

    A layer group that sees everything needs every block from the start. A windowed one needs only
    those that the next token sees: what slid out of its window may long be gone.
    """
    groups = range(len(windows))
    end = len(digests)
    for group in groups:
        if windows[group] is None:
            missing = (i for i in range(end) if pool.find((group, digests[i])) is None)
            end = next(missing, end)
    while (hole := _last_hole(pool, digests, end, windows, block_tokens)) is not None:
        end = hole  # any longer beginning would need that block too
    tables = []
    for group in groups:
        first = unseen_blocks(windows[group], end * block_tokens, block_tokens)
        found = [pool.find((group, digest)) for digest in digests[first:end]]
        blocks = [block for block in found if block is not None]
        tables.append(BlockTable(windows[group], first, blocks))
    return Prefix(end * block_tokens, tuple(tables))


def _last_hole(
    pool: BlockPool,
    digests: Sequence[bytes],
    end: int,
    windows: Sequence[int | None],
    block_tokens: int,
) -> int | None:
    """Return the last block that a windowed group would miss with a beginning of `end` blocks."""
    firsts = {
        group: unseen_blocks(window, end * block_tokens, block_tokens)
        for group, window in enumerate(windows)
        if window is not None
    }
    for block in reversed(range(min(firsts.values(), default=end), end)):
        for group, first in firsts.items():
            if block >= first and pool.find((group, digests[block])) is None:
                return block
    return None
