"""What a step computes, as an attention backend needs to know it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepBatch:
    """The requests of one step, their tokens laid end to end.

    query_starts    first row of each request, and the count of all rows at the end
    context_tokens  tokens of each request after this step: computed before, and now
    blocks          block numbers of each request, enough for its context
    """

    query_starts: tuple[int, ...]
    context_tokens: tuple[int, ...]
    blocks: tuple[Sequence[int], ...]
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

    def slots(self) -> list[int]:
        """Return the cache slot that each row's key and value go to."""
        size = self.block_tokens
        return [
            self.blocks[request][position // size] * size + position % size
            for request, context in enumerate(self.context_tokens)
            for position in range(context - self.query_tokens(request), context)
        ]
