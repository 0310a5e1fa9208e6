"""Send one request to one replica, and the replica's answer to the client."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import aiohttp
from aiohttp import web

from llm_operator.gateway.asked import Asked
from llm_operator.gateway.metrics import ModelMetrics, Outcome
from llm_operator.gateway.refusal import Refusal
from llm_operator.gateway.relay import Relay, ReplicaBroke
from llm_operator.gateway.replica import Replica, Sign
from llm_operator.gateway.settings import Settings

log = logging.getLogger(__name__)

REQUEST_ID: Final = "X-Request-Id"
SERVER: Final = "llm-operator"
# Only these pass. Identity, cookies and hop-by-hop headers end here, whichever way they go.
HEADERS_TO_REPLICA: Final = ("Accept", "Content-Type", "Traceparent", "Tracestate")
HEADERS_TO_CLIENT: Final = ("Content-Type", "Cache-Control", "Retry-After")
EVENT_STREAM: Final = "text/event-stream"


class Failure(Enum):
    """How a replica failed a request before the first byte of its answer."""

    REFUSED = auto()  # no connection
    UNREACHABLE = auto()  # no connection in time
    BROKEN = auto()  # cut off
    BAD_GATEWAY = auto()  # 502
    UNAVAILABLE = auto()  # 503: it takes no requests
    SLOW = auto()  # no first token in time


class ReplicaFailed(Exception):
    """A replica failed a request, and nothing of an answer has reached the client."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.name)
        self.failure = failure


@dataclass
class Call:
    """A request on its way through the gateway.

    arrived_s   when its head had been read; deadlines and time to first token count from here
    overhead_s  time spent by the gateway itself so far
    outcome     how it ended, as far as it has
    """

    request: web.BaseRequest
    request_id: str
    asked: Asked
    body: bytes
    arrived_s: float
    metrics: ModelMetrics
    overhead_s: float = 0.0
    outcome: Outcome = Outcome.FAILED

    def headers_to_replica(self) -> dict[str, str]:
        """Return the client's headers that pass, and the request's id."""
        given = self.request.headers
        headers = {name: given[name] for name in HEADERS_TO_REPLICA if name in given}
        headers[REQUEST_ID] = self.request_id
        return headers

    def headers_to_client(self, upstream: aiohttp.ClientResponse) -> dict[str, str]:
        """Return the replica's headers that pass, and the request's id."""
        given = upstream.headers
        headers = {name: given[name] for name in HEADERS_TO_CLIENT if name in given}
        headers |= {REQUEST_ID: self.request_id, "Server": SERVER}
        return headers


@dataclass
class Attempt:
    """One try of a call on one replica."""

    call: Call
    replica: Replica
    session: aiohttp.ClientSession
    settings: Settings
    closing: bool  # the gateway drains: the client should come back over a new connection
    _relay: Relay | None = field(default=None, init=False)

    async def run(self) -> web.StreamResponse:
        """Return the answer, sent already where it is a stream.

        Raises ReplicaFailed while nothing has been sent, ConnectionError when the client is gone.
        Whatever ends it, the replica's connection is closed unless its answer was complete.
        """
        stream = self.call.asked.stream
        limit_s = self.settings.first_token_s if stream else self.settings.whole_answer_s
        try:
            async with asyncio.timeout(limit_s) as deadline:
                upstream = await self._send()
                try:
                    if upstream.content_type == EVENT_STREAM:
                        return await self._stream(upstream, deadline)
                    return await self._whole(upstream)
                finally:
                    upstream.close()
        except TimeoutError as error:
            if self._relay is None:
                raise ReplicaFailed(Failure.SLOW) from error
            if self._relay.writing:
                if self.call.request.transport is not None:
                    self.call.request.transport.abort()  # a mere close would wait for its reading
                raise ConnectionAbortedError("the client has stopped reading") from error
            return await self._break_off(self._relay, "it fell silent")
        except ReplicaBroke as error:
            if self._relay is None:
                raise ReplicaFailed(Failure.BROKEN) from error
            return await self._break_off(self._relay, str(error))

    async def _send(self) -> aiohttp.ClientResponse:
        """Return the head of the replica's answer."""
        call = self.call
        url = self.replica.url + call.request.rel_url.raw_path
        try:
            upstream = await self.session.post(
                url, data=call.body, headers=call.headers_to_replica(), allow_redirects=False
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise ReplicaFailed(Failure.UNREACHABLE) from error
        except aiohttp.ClientConnectorError as error:
            raise ReplicaFailed(Failure.REFUSED) from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise ReplicaFailed(Failure.BROKEN) from error
        if upstream.status in (502, 503):
            upstream.close()
            unavailable = upstream.status == 503
            raise ReplicaFailed(Failure.UNAVAILABLE if unavailable else Failure.BAD_GATEWAY)
        self.replica.observe(Sign.ALIVE)
        return upstream

    async def _whole(self, upstream: aiohttp.ClientResponse) -> web.Response:
        """Read an answer to its end before any of it is sent, so that it can still be retried."""
        try:
            body = await upstream.read()
        except (aiohttp.ClientError, OSError) as error:
            raise ReplicaBroke(type(error).__name__) from error
        self._first_byte()
        if upstream.status < 400:
            self.call.outcome = Outcome.OK
        elif upstream.status < 500:
            self.call.outcome = Outcome.REJECTED
        headers = self.call.headers_to_client(upstream)
        return web.Response(status=upstream.status, body=body, headers=headers)

    async def _stream(
        self, upstream: aiohttp.ClientResponse, deadline: asyncio.Timeout
    ) -> web.StreamResponse:
        """Send a stream on as it comes; the client sees its head with its first token."""
        try:
            first = await upstream.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ReplicaBroke(type(error).__name__) from error
        if not first:
            raise ReplicaBroke("empty stream")
        now_s = self._first_byte()
        headers = self.call.headers_to_client(upstream)
        headers["X-Accel-Buffering"] = "no"  # a proxy in front of us must not collect tokens
        response = web.StreamResponse(status=upstream.status, headers=headers)
        if self.closing:
            response.force_close()
        self._relay = Relay(
            upstream, response, deadline, self.settings.between_chunks_s, self._heard
        )
        await response.prepare(self.call.request)
        self.call.overhead_s += time.monotonic() - now_s
        await self._relay.run(first)
        self.call.outcome = Outcome.OK
        return response

    async def _break_off(self, relay: Relay, why: str) -> web.StreamResponse:
        """End a stream that has begun with an error event, no [DONE], and a closed connection."""
        log.warning("%s broke off %s: %s", self.replica.url, self.call.request_id, why)
        message = "The replica failed in the middle of its answer; what came before is incomplete."
        await relay.response.write(Refusal(502, "replica_failed", message).event)
        relay.response.force_close()
        return relay.response

    def _first_byte(self) -> float:
        now_s = time.monotonic()
        self.call.metrics.first_token_s.observe(now_s - self.call.arrived_s)
        return now_s

    def _heard(self) -> None:
        self.replica.observe(Sign.ALIVE)
