"""The bounded line in which a model's requests wait for a replica; pure."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Waiter = TypeVar("Waiter")


@dataclass(frozen=True, eq=False)
class Held(Generic[Waiter]):
    """One waiting request; `since_s` is when it first came, on a monotonic clock."""

    waiter: Waiter
    body_bytes: int
    since_s: float


@dataclass
class Line(Generic[Waiter]):
    """First come, first served, within a count of requests and a sum of bytes."""

    most_requests: int
    most_bytes: int
    body_bytes: int = 0
    _order: OrderedDict[Held[Waiter], None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Held[Waiter]]:
        return iter(self._order)

    def join(self, held: Held[Waiter]) -> bool:
        """Put a request at the end; False when the line is full."""
        full = len(self._order) >= self.most_requests
        if full or self.body_bytes + held.body_bytes > self.most_bytes:
            return False
        self._order[held] = None
        self.body_bytes += held.body_bytes
        return True

    def rejoin(self, held: Held[Waiter]) -> None:
        """Put a request whose replica failed in front: it has waited before all others.

        Beyond the bounds too: it was within them once, and those in flight are bounded.
        """
        self._order[held] = None
        self._order.move_to_end(held, last=False)
        self.body_bytes += held.body_bytes

    def leave(self, held: Held[Waiter]) -> None:
        """Take a request out, wherever it stands; nothing happens when it has left already."""
        if held in self._order:
            del self._order[held]
            self.body_bytes -= held.body_bytes

    def first(self) -> Held[Waiter] | None:
        """Return who is next, without taking it out."""
        return next(iter(self._order), None)

    def oldest_since_s(self) -> float | None:
        """Return when the longest waiting request came."""
        first = self.first()
        return None if first is None else first.since_s
