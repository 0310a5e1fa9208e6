"""A request as the scheduler sees it: tokens known, how many are computed, blocks held."""

from dataclasses import dataclass, field
from typing import Final

ALL_TOKENS: Final[tuple[int | None, ...]] = (None,)
"""The windows of a model whose layers all see everything: one group."""


@dataclass
class BlockTable:
    """The blocks that one request holds for one layer group.

    window_tokens  newest tokens that the group's layers see; None: all
    released       leading blocks that slid out of the window and were given back
    blocks         blocks[i] is for the tokens from (released + i) * block_tokens on
    """

    window_tokens: int | None = None
    released: int = 0
    blocks: list[int] = field(default_factory=list)

    def blocks_to_add(self, end_tokens: int, block_tokens: int) -> int:
        """Return the blocks still missing for a text of `end_tokens` computed tokens."""
        return max(0, -(-end_tokens // block_tokens) - self.released - len(self.blocks))

    def slide(self, computed_tokens: int, block_tokens: int) -> list[int]:
        """Let go of the blocks that no token after the computed ones will see, and return them."""
        if self.window_tokens is None:
            return []
        # The next token sees itself and the window_tokens - 1 before it.
        unseen = max(0, computed_tokens + 1 - self.window_tokens) // block_tokens
        gone = self.blocks[: max(0, unseen - self.released)]
        del self.blocks[: len(gone)]
        self.released += len(gone)
        return gone


@dataclass(eq=False)
class Request:
    """One request's place in the engine; requests are the same only if they are one object.

    tokens          prompt and output so far; grows by the sampled token
    prompt_tokens   how many of `tokens` are the prompt
    windows         the window of each layer group; None: it sees everything
    computed_tokens how many of `tokens` have keys and values in the tables' blocks
    tables          the blocks of each layer group
    furthest_tokens the most that was ever computed: what preemption throws away is below it
    """

    request_id: str
    tokens: list[int]
    block_tokens: int
    windows: tuple[int | None, ...] = ALL_TOKENS
    prompt_tokens: int = field(init=False)
    computed_tokens: int = 0
    furthest_tokens: int = 0
    tables: tuple[BlockTable, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)
        self.tables = self._empty_tables()

    @property
    def tokens_behind(self) -> int:
        """Count tokens still to compute: a whole prompt, or the one token sampled last."""
        return len(self.tokens) - self.computed_tokens

    @property
    def output_tokens(self) -> int:
        """Count tokens sampled so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def is_decoding(self) -> bool:
        """Tell whether only the last sampled token is missing."""
        return self.tokens_behind == 1 and self.output_tokens > 0

    def advance(self, count: int) -> int:
        """Note `count` more tokens as computed; return how many had been computed before."""
        before = self.computed_tokens
        self.computed_tokens += count
        again = max(0, min(self.furthest_tokens, self.computed_tokens) - before)
        self.furthest_tokens = max(self.furthest_tokens, self.computed_tokens)
        return again

    @property
    def blocks_held(self) -> int:
        """Count the blocks of all tables."""
        return sum(len(table.blocks) for table in self.tables)

    def restart(self) -> list[int]:
        """Forget what was computed, keep the tokens, and return the blocks that were held."""
        held = [block for table in self.tables for block in table.blocks]
        self.tables = self._empty_tables()
        self.computed_tokens = 0
        return held

    def slide(self) -> list[int]:
        """Let go of every block that slid out of its window, and return them."""
        return [
            block
            for table in self.tables
            for block in table.slide(self.computed_tokens, self.block_tokens)
        ]

    def blocks_to_add(self, count: int) -> int:
        """Return the blocks that computing `count` more tokens needs beyond those held."""
        end = self.computed_tokens + count
        return sum(table.blocks_to_add(end, self.block_tokens) for table in self.tables)

    def _empty_tables(self) -> tuple[BlockTable, ...]:
        return tuple(BlockTable(window) for window in self.windows)
