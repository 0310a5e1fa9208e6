"""An aiohttp server with our limits, and our error objects for what is not even HTTP."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from llm_operator.gateway.refusal import Refusal

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

LINGERING_S = 2.0  # a client that still sends a refused body gets this long to see the refusal


class HttpServer(web.Server):
    """Calls `handler` for each request, and cancels it when its client goes away."""

    def __init__(self, handler: Handler, max_body_bytes: int, idle_s: float) -> None:
        super().__init__(
            handler,
            request_factory=self._request,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=idle_s,
            lingering_time=LINGERING_S,
        )
        self._max_body_bytes = max_body_bytes

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _Protocol(self, loop=self._loop, **self._kwargs)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            self._loop,
            client_max_size=self._max_body_bytes,
        )


class _Protocol(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP; neither log nor answer repeats it, it may be a prompt."""
        del exc, message
        if request.writer.output_size > 0:
            raise ConnectionError("too late for an error object: the answer has begun")
        refusal = Refusal(status, "bad_http", "This is not a well-formed HTTP request.")
        response = web.Response(status=status, body=refusal.body, content_type="application/json")
        response.force_close()
        return response
