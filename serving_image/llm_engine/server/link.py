"""What the server and its engine's process say to each other, and how it travels.

Both ends are one program and one version, so messages are pickled as they are. Nothing that comes
from outside is ever unpickled: the socket has no name and nobody else holds an end of it.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final

from llm_engine.contract.inspection import Failure
from llm_engine.contract.shape import ModelShape
from llm_engine.engine.engine import Engine
from llm_engine.engine.messages import EngineStats, GenerationRequest, StepRecord, TokenEvent

_LENGTH_BYTES: Final = 4

OnPhase = Callable[[str], None]

# To the engine.


@dataclass(frozen=True)
class Load:
    """Make the engine; the first message. `make` must be found by name in the other process."""

    make: Callable[[OnPhase], Engine]


@dataclass(frozen=True)
class Submit:
    """Run a request."""

    request: GenerationRequest


@dataclass(frozen=True)
class Abort:
    """End a request."""

    request_id: str


@dataclass(frozen=True)
class Stop:
    """End the process."""


# To the server.


@dataclass(frozen=True)
class Phase:
    """A phase of the start has begun."""

    name: str


@dataclass(frozen=True)
class Ready:
    """The engine runs."""

    shape: ModelShape
    dtype: str
    max_context_tokens: int
    stats: EngineStats


@dataclass(frozen=True)
class Failed:
    """There is no engine, or no longer; the last message."""

    failure: Failure


PackedEvent = tuple[Any, ...]
"""The fields of a `TokenEvent`; the first two alone where they say it all, as they mostly do.

A pair pickles ten times as fast as the event itself, and there is one for every token.
"""

_SHORT: Final = 2
_fields = attrgetter(*(field.name for field in fields(TokenEvent)))
_REST_UNSET: Final = _fields(TokenEvent("", ()))[_SHORT:]


@dataclass(frozen=True)
class News:
    """All that happened since the last news, one message a step.

    submitted  requests that the engine had been given when it wrote this
    """

    events: Sequence[PackedEvent]
    steps: Sequence[StepRecord]
    stats: EngineStats
    submitted: int


def pack(event: TokenEvent) -> PackedEvent:
    """Return an event in its shortest form."""
    packed: PackedEvent = _fields(event)
    return packed[:_SHORT] if packed[_SHORT:] == _REST_UNSET else packed


def frame(message: object) -> bytes:
    """Return a message as it goes over the socket: its length, then itself."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take what arrived and yield the messages that are now whole."""
        self._bytes += data
        start = 0
        while (begin := start + _LENGTH_BYTES) <= len(self._bytes):
            end = begin + int.from_bytes(self._bytes[start:begin], "little")
            if end > len(self._bytes):
                break
            yield pickle.loads(memoryview(self._bytes)[begin:end])
            start = end
        del self._bytes[:start]
