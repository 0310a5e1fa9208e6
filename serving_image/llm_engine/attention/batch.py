"""What a step computes, as an attention backend needs to know it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GroupTables:
    """The blocks of one layer group, per request of the step.

    window_tokens  newest tokens that the group's layers see; None: all
    released       per request: leading blocks that were given back
    blocks         per request: blocks[i] is for the tokens from (released + i) * block_tokens on
    """

    window_tokens: int | None
    released: tuple[int, ...]
    blocks: tuple[Sequence[int], ...]


@dataclass(frozen=True)
class StepBatch:
    """The requests of one step, their tokens laid end to end.

    query_starts    first row of each request, and the count of all rows at the end
    context_tokens  tokens of each request after this step: computed before, and now
    groups          block numbers of each request per layer group, enough for its context
    """

    query_starts: tuple[int, ...]
    context_tokens: tuple[int, ...]
    groups: tuple[GroupTables, ...]
    block_tokens: int

    @property
    def requests(self) -> int:
        """Count requests."""
        return len(self.context_tokens)

    def query_tokens(self, request: int) -> int:
        """Count the tokens that this request computes now."""
        return self.query_starts[request + 1] - self.query_starts[request]

    def positions(self) -> list[int]:
        """Return the position of each row in its own text."""
        return [
            position
            for request, context in enumerate(self.context_tokens)
            for position in range(context - self.query_tokens(request), context)
        ]

    def slots(self, group: int) -> list[int]:
        """Return the cache slot that each row's key and value of this group go to."""
        size = self.block_tokens
        tables = self.groups[group]
        return [
            tables.blocks[request][position // size - tables.released[request]] * size
            + position % size
            for request, context in enumerate(self.context_tokens)
            for position in range(context - self.query_tokens(request), context)
        ]

    def used_blocks(self, group: int, request: int) -> Sequence[int]:
        """Return the blocks that hold this request's context; it may own more by now."""
        tables = self.groups[group]
        needed = -(-self.context_tokens[request] // self.block_tokens)
        return tables.blocks[request][: needed - tables.released[request]]
