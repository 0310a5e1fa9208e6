"""A request as the scheduler sees it: tokens known, how many are computed, blocks held."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from llm_engine.scheduling.prefix import Prefix, extend_digests
from llm_engine.scheduling.tables import BlockTable

ALL_TOKENS: Final[tuple[int | None, ...]] = (None,)
"""The windows of a model whose layers all see everything: one group."""


@dataclass(eq=False)
class Request:
    """One request's place in the engine; requests are the same only if they are one object.

    tokens          prompt and output so far; grows by the sampled token
    windows         the window of each layer group; None: it sees everything
    most_output     tokens that it may generate at most; 0: only its prompt is to be computed
    priority        the lower, the more urgent
    salt            only requests of the same salt find each other's blocks
    reads_prefixes  whether blocks of other texts with the same beginning may be used; not when
                    something is wanted of every token of the prompt
    prompt_tokens   how many of `tokens` are the prompt
    computed_tokens how many of `tokens` have keys and values in the tables' blocks
    furthest_tokens the most that was ever computed: what preemption throws away is below it
    found_tokens    prompt tokens that were found computed when it was admitted; None before
    tables          the blocks of each layer group
    digests         of the text up to the end of each whole block, as far as they were needed
    rank            its turn: the lowest goes first; set by the scheduler, and never changed
    """

    request_id: str
    tokens: list[int]
    block_tokens: int
    windows: tuple[int | None, ...] = ALL_TOKENS
    most_output: int = 0
    priority: int = 0
    salt: str = ""
    reads_prefixes: bool = True
    prompt_tokens: int = field(init=False)
    computed_tokens: int = 0
    furthest_tokens: int = 0
    found_tokens: int | None = None
    tables: tuple[BlockTable, ...] = field(init=False)
    digests: list[bytes] = field(init=False, default_factory=list)
    rank: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)
        self.tables = self._empty_tables()
        # Now, on the caller's thread, rather than between two steps.
        extend_digests(self.digests, self.tokens, self.block_tokens, self.salt)

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

    @property
    def held(self) -> Iterator[int]:
        """Iterate over the blocks of all tables, the text's end first.

        Released in this order, a text is forgotten from its end, and its beginning stays usable.
        """
        return (block for table in self.tables for block in reversed(table.blocks))

    def advance(self, count: int) -> int:
        """Note `count` more tokens as computed; return how many had been computed before."""
        before = self.computed_tokens
        self.computed_tokens += count
        again = max(0, min(self.furthest_tokens, self.computed_tokens) - before)
        self.furthest_tokens = max(self.furthest_tokens, self.computed_tokens)
        if self.computed_tokens // self.block_tokens > len(self.digests):
            extend_digests(self.digests, self.tokens, self.block_tokens, self.salt)
        return again

    def restart(self) -> list[int]:
        """Forget what was computed, keep the tokens, and return the blocks that were held."""
        held = list(self.held)
        self.tables = self._empty_tables()
        self.computed_tokens = 0
        return held

    def slide(self) -> list[int]:
        """Let go of every block that slid out of its window, and return them."""
        return [
            block
            for table in self.tables
            if table.window_tokens is not None
            for block in table.slide(self.computed_tokens, self.block_tokens)
        ]

    def blocks_to_add(self, count: int, prefix: Prefix | None = None) -> int:
        """Return the blocks that computing `count` more tokens needs beyond those held.

        prefix  where it would begin; None: where it stands
        """
        tables = self.tables if prefix is None else prefix.tables
        end = count + (self.computed_tokens if prefix is None else prefix.tokens)
        # All tables reach equally far into the text: they differ only in what they gave back.
        return len(tables) * tables[0].blocks_to_add(end, self.block_tokens)

    def most_to_add(
        self, step_tokens: int, growth_tokens: int, prefix: Prefix | None = None
    ) -> int:
        """Return the most blocks that it will hold beyond today's until it has caught up and grown.

        step_tokens    most tokens of a request in one step
        growth_tokens  tokens to generate after that, unless it ends before
        prefix         where it would begin; None: where it stands
        """
        ends_at = max(len(self.tokens), self.prompt_tokens + self.most_output)
        end = min(len(self.tokens) + growth_tokens, ends_at)
        computed, tables = self.computed_tokens, self.tables
        if prefix is not None:
            computed, tables = prefix.tokens, prefix.tables
        # A stream takes one token a step: a window needs no room for a whole step's tokens.
        chunk = min(step_tokens, max(1, len(self.tokens) - computed))
        return sum(table.most_to_add(end, chunk, self.block_tokens) for table in tables)

    def begin(self, prefix: Prefix) -> None:
        """Start from what was found; its blocks are this request's own from now on."""
        self.tables = tuple(replace(table, blocks=[*table.blocks]) for table in prefix.tables)
        self.computed_tokens = prefix.tokens
        if self.found_tokens is None:
            self.found_tokens = prefix.tokens

    def _empty_tables(self) -> tuple[BlockTable, ...]:
        return tuple(BlockTable(window) for window in self.windows)
