"""Carries requests to the engine's thread, and its tokens back to the event loop.

The one place where the two threads meet. Everything else of the server lives on the event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from llm_engine.engine.messages import EngineStopped, FinishReason, GenerationRequest, TokenEvent
from llm_engine.sampling.sampled import TokenLogprob
from llm_engine.server.backend import Backend
from llm_engine.server.errors import ApiError, engine_stopped
from llm_engine.server.metrics import Metrics

STALLED_AFTER_S: Final = 30.0
"""Requests open and nothing computed for so long means that the engine hangs."""

WAVE_TURNS: Final = 3
"""Turns of the event loop until the readers that a delivery wakes have sent their events."""

MOST_REST_S: Final = 0.05
"""However long the loop was busy, news waits no longer than this."""


MOST_UNREAD_TOKENS: Final = 8192
"""A client that has left so many tokens unread loses its request: nobody is waiting for them."""


@dataclass(frozen=True)
class Room:
    """What may be open at once, running and waiting; the rest is refused at the door.

    prompt_tokens  of all open requests together; a request alone is never too large
    """

    requests: int
    prompt_tokens: int


@dataclass(frozen=True)
class Delivery:
    """What arrived for a request since the last delivery; several steps' tokens if it was slow.

    finish_reason  set on the last one
    logprobs       one for each token, where the request asks for them
    prompt_logprobs  of the prompt's tokens after the first, likewise, in the first delivery
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass
class Stream:
    """One request's way through the engine.

    A context manager: leaving it early (client gone, stop string) aborts the request.

    finish_reason  why it ended for its reader; the engine's own last word may come later
    output_tokens  tokens produced so far, the one that ended the text too
    cached_tokens  how many of the prompt's tokens the prefix cache held
    """

    request: GenerationRequest
    submitted_s: float
    _owner: "Streams"
    first_token_s: float | None = None
    last_token_s: float = 0.0
    output_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: FinishReason | None = None
    _new_tokens: list[int] = field(default_factory=list)
    _new_logprobs: list[TokenLogprob] = field(default_factory=list)
    _prompt_logprobs: tuple[TokenLogprob, ...] = ()
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self) -> Delivery:
        """Wait for news and return all that arrived."""
        await self._news.wait()
        self._news.clear()
        tokens, self._new_tokens = self._new_tokens, []
        logprobs, self._new_logprobs = self._new_logprobs, []
        prompt_logprobs, self._prompt_logprobs = self._prompt_logprobs, ()
        return Delivery(tuple(tokens), self.finish_reason, tuple(logprobs), prompt_logprobs)

    def push(self, event: TokenEvent) -> None:
        """Lay tokens out for the reader, who takes them when it is woken."""
        self._new_tokens += event.token_ids
        self._new_logprobs += event.logprobs
        self._prompt_logprobs += event.prompt_logprobs

    def wake(self) -> None:
        """Tell the reader that there is news: tokens, or a finish reason just set."""
        self._news.set()

    @property
    def unread_tokens(self) -> int:
        """Count tokens that the reader has not taken."""
        return len(self._new_tokens)

    def stop(self) -> None:
        """End the request as a success of its own: a stop string was found in its text."""
        self._owner.end(self, "stop")

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Abort the request unless it has finished."""
        self._owner.end(self, "abort")


class Streams:
    """All requests that are open, and whether the engine moves.

    loop   the event loop; every method but `deliver` and `step_done` runs on it
    room   what may be open at once
    clock  monotonic, in seconds
    """

    def __init__(
        self,
        backend: Backend,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        room: Room,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._backend = backend
        self._metrics = metrics
        self._loop = loop
        self._room = room
        # Kept until the engine's last word about them, which brings their times.
        self._known: dict[str, Stream] = {}
        self._prompt_tokens = 0  # of all these
        self._inbox: deque[tuple[float, TokenEvent]] = deque()
        self._wake_up_due = False
        self._in_wave: list[Stream] = []
        self._wave_due = False
        self._next_wave_at_s = 0.0  # on the loop's own clock
        self._progress_s = self._clock()

    def open(self, request: GenerationRequest) -> Stream:
        """Submit a request; raises `ApiError` (429) when too many are open already."""
        self.check_room([request])
        now_s = self._clock()
        if not self._known:
            self._progress_s = now_s
        try:
            self._backend.submit(request, self.deliver)
        except EngineStopped:
            raise engine_stopped() from None
        stream = Stream(request, now_s, self)
        self._known[request.request_id] = stream
        self._prompt_tokens += len(request.prompt_tokens)
        return stream

    def check_room(self, requests: Sequence[GenerationRequest]) -> None:
        """Raise `ApiError` (429) unless all these may come in."""
        room, opened = self._room, len(self._known)
        tokens = sum(len(request.prompt_tokens) for request in requests)
        if opened + len(requests) > room.requests:
            full = f"{opened} requests are open (limit {room.requests})"
        elif opened and self._prompt_tokens + tokens > room.prompt_tokens:
            full = (
                f"{self._prompt_tokens} prompt tokens of {opened} requests are open (limit "
                f"{room.prompt_tokens}, and this one has {tokens})"
            )
        else:
            return
        message = f"{full}; try again, or another replica"
        raise ApiError(429, message, code="rate_limit_exceeded", retry_after_s=1)

    def end(self, stream: Stream, reason: FinishReason) -> None:
        """End a request from our side; one that has finished already stays as it is."""
        if stream.finish_reason is None:
            stream.finish_reason = reason
            self._backend.abort(stream.request.request_id)

    def abort_all(self) -> None:
        """End every open request; their readers see `abort`."""
        for stream in self._known.values():
            self.end(stream, "abort")
            stream.wake()

    def deliver(self, event: TokenEvent) -> None:
        """Take an event from the engine's thread.

        One wake-up of the event loop serves all events of a step: each costs a system call.
        """
        self._inbox.append((self._clock(), event))
        if not self._wake_up_due:
            self._wake_up_due = True
            self._loop.call_soon_threadsafe(self._sort_inbox)

    def step_done(self) -> None:
        """Note from the engine's thread that a step computed something."""
        self._progress_s = self._clock()

    def _sort_inbox(self) -> None:
        self._wake_up_due = False  # before reading: an event that comes now wakes us again
        while self._inbox:
            at_s, event = self._inbox.popleft()
            stream = self._known.get(event.request_id)
            if stream is not None:
                self._take(stream, event, at_s)
        if self._in_wave and not self._wave_due:
            self._wave_due = True
            self._loop.call_at(self._next_wave_at_s, self._send_wave)

    def _send_wave(self) -> None:
        """Wake readers, and rest as long as sending their events takes before the next wave.

        With few streams a wave takes no time. With many at a quick model it would take longer than
        a step: then each event brings the tokens of several steps, instead of all events being
        late and the CPU that the engine needs being spent on them.
        """
        self._wave_due = False
        self._wave_sent(self._loop.time())
        in_wave, self._in_wave = self._in_wave, []
        for stream in in_wave:
            stream.wake()

    def _wave_sent(self, began_s: float, turns: int = WAVE_TURNS) -> None:
        if turns:
            self._loop.call_soon(self._wave_sent, began_s, turns - 1)
        else:
            now_s = self._loop.time()
            self._next_wave_at_s = now_s + min(now_s - began_s, MOST_REST_S)

    def _take(self, stream: Stream, event: TokenEvent, at_s: float) -> None:
        produced = len(event.token_ids)
        if event.times is not None and event.finish_reason == "stop":
            produced = event.times.output_tokens - stream.output_tokens  # with the ending token
        if stream.finish_reason is None:
            is_first = stream.first_token_s is None
            self._time_tokens(stream, produced, at_s)
            stream.cached_tokens = event.cached_tokens
            stream.finish_reason = event.finish_reason
            if is_first or event.finish_reason is not None:
                stream.wake()  # somebody waits for exactly this
            elif stream.unread_tokens == 0:
                self._in_wave.append(stream)
            stream.push(event)
            if stream.unread_tokens > MOST_UNREAD_TOKENS:
                self.end(stream, "abort")
        if event.finish_reason is not None:
            del self._known[event.request_id]
            self._prompt_tokens -= len(stream.request.prompt_tokens)
            self._metrics.request_finished(stream, event.times)

    def _time_tokens(self, stream: Stream, produced: int, at_s: float) -> None:
        if produced == 0:
            return
        if stream.first_token_s is None:
            stream.first_token_s = at_s
            self._metrics.time_to_first_token.observe(at_s - stream.submitted_s)
        else:
            between_s = at_s - stream.last_token_s
            self._metrics.inter_token_latency.observe(between_s / produced, produced)
        stream.last_token_s = at_s
        stream.output_tokens += produced

    @property
    def open_requests(self) -> int:
        """Requests that the engine still knows."""
        return len(self._known)

    def why_stalled(self) -> str | None:
        """Return why the engine counts as hung, or None."""
        if not self._backend.healthy:
            return "the engine has died"
        silent_s = self._clock() - self._progress_s
        if self._known and silent_s > STALLED_AFTER_S:
            requests = len(self._known)
            return f"{requests} requests are open and nothing was computed for {silent_s:.0f} s"
        return None
