"""Clients that hold a connection without using it: slow headers, slow bodies, no reading.

uvicorn has a limit for the pause between two requests and none for these.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from llm_engine.server.errors import crowded

KEEP_ALIVE_S: Final = 75
"""Longer than clients keep an idle connection, so that it is they who close it."""

HEADER_S: Final = 10.0
"""From the connection, or from the end of the pause between requests, to a whole header."""

BODY_S: Final = 30.0
"""From the header to the end of the body."""

UNREAD_S: Final = 30.0
"""How long a client may leave what was sent to it unread, not taking a single byte."""

MOST_CONNECTIONS: Final = 2048
"""More are refused; the probes are answered still."""

SWEEP_S: Final = 2.0
"""Seconds between two looks at all connections."""


class Transport(Protocol):
    """The part of asyncio's that is needed here."""

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the client has not taken yet."""

    def abort(self) -> None:
        """Close now, whatever is unsent."""


class Cycle(Protocol):
    """uvicorn's word for one request and its response."""

    response_complete: bool
    more_body: bool


class Connection(Protocol):
    """uvicorn's side of one connection."""

    transport: Transport
    cycle: Cycle | None


@dataclass(frozen=True)
class _State:
    """What a connection waits for; it may do so for `limit_s`, until anything of this changes."""

    limit_s: float
    cycle: Cycle | None  # the thing itself, since the number of one that is gone comes again
    unsent_bytes: int


class Connections:
    """All open connections, and since when each has not moved.

    opened  returns them
    clock   monotonic, in seconds
    """

    def __init__(
        self, opened: Callable[[], Collection[Connection]], clock: Callable[[], float]
    ) -> None:
        self._opened = opened
        self._clock = clock
        self._since: dict[Connection, tuple[_State, float]] = {}

    def check_room(self) -> None:
        """Raise `ApiError` (503) when there are too many to answer another request."""
        if len(self._opened()) > MOST_CONNECTIONS:
            raise crowded(MOST_CONNECTIONS)

    def sweep(self) -> int:
        """Close what has not moved for too long; return how many these were."""
        now_s, before, closed = self._clock(), self._since, 0
        self._since = {}
        for connection in list(self._opened()):
            state = _state(connection)
            if state is None:
                continue
            seen, since_s = before.get(connection, (state, now_s))
            since_s = since_s if seen == state else now_s
            if now_s - since_s > state.limit_s:
                connection.transport.abort()
                closed += 1
            else:
                self._since[connection] = (state, since_s)
        return closed


def _state(connection: Connection) -> _State | None:
    """Return what the client owes us, or None when it is we who owe an answer."""
    cycle, unsent = connection.cycle, connection.transport.get_write_buffer_size()
    if unsent > 0:
        return _State(UNREAD_S, cycle, unsent)
    if cycle is None:
        return _State(HEADER_S, None, 0)
    if cycle.response_complete:
        return _State(KEEP_ALIVE_S + HEADER_S, cycle, 0)
    return _State(BODY_S, cycle, 0) if cycle.more_body else None
