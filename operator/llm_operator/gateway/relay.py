"""Carry one answer from a replica to the client: bytes in, the same bytes out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n")
MOST_PENDING_BYTES: Final = 1024 * 1024
CHECK_EVERY_S: Final = 1.0


class ReplicaBroke(Exception):
    """The replica's answer ended before it was complete."""


@dataclass(slots=True)
class WholeEvents:
    """Cuts a byte stream where events end, so that an answer that breaks off ends cleanly.

    Half an event must never reach a client: an error event could not follow it.
    """

    pending: bytes = b""

    def cut(self, chunk: bytes) -> bytes:
        """Return what can be sent on: all up to the end of the last whole event."""
        if self.pending:
            chunk = self.pending + chunk
        if chunk.endswith(EVENT_ENDS):  # nearly always: an engine writes event by event
            self.pending = b""
            return chunk
        end = max(chunk.rfind(mark) + len(mark) if mark in chunk else 0 for mark in EVENT_ENDS)
        if len(chunk) - end > MOST_PENDING_BYTES:
            end = len(chunk)  # no event stream at all: send it as it comes
        self.pending = chunk[end:]
        return chunk[:end]


@dataclass(slots=True)
class Relay:
    """One stream on its way; `deadline` is the timeout that the whole exchange runs under.

    heard  called now and then while the replica sends
    """

    upstream: aiohttp.ClientResponse
    response: web.StreamResponse
    deadline: asyncio.Timeout
    silence_s: float
    heard: Callable[[], None]
    writing: bool = False

    async def run(self, first: bytes) -> None:
        """Send `first` and all that follows.

        Raises ReplicaBroke, ConnectionError when the client is gone, and (by the deadline)
        TimeoutError after `silence_s` without progress; `writing` tells whose silence it was.
        """
        events = WholeEvents()
        chunk = first
        moved_s = 0.0
        while chunk:
            # The deadline is moved once a second, not per chunk: a timer costs more than a token.
            now_s = asyncio.get_running_loop().time()
            if now_s - moved_s > CHECK_EVERY_S:
                moved_s = now_s
                self.deadline.reschedule(now_s + self.silence_s)
                self.heard()
            if whole := events.cut(chunk):
                self.writing = True
                await self.response.write(whole)
                self.writing = False
            try:
                chunk = await self.upstream.content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise ReplicaBroke(type(error).__name__) from error
        if events.pending:
            await self.response.write(events.pending)
