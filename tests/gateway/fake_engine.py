"""A small engine on a real port, which answers as a test tells it to."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
DONE = b"data: [DONE]\n\n"


def event(number: int) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": f"t{number}"}]}).encode() + b"\n\n"


def whole(text: str = "hello", headers: Mapping[str, str] | None = None) -> Answer:
    """An answer in one piece."""

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return web.json_response({"choices": [{"text": text}]}, headers=headers)

    return answer


def status(number: int, body: str = "{}", after_s: float = 0.0) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        await asyncio.sleep(after_s)
        return web.Response(status=number, text=body, content_type="application/json")

    return answer


def pieces(*chunks: bytes, between_s: float = 0.0, end: str = "clean") -> Answer:
    """A stream of these chunks; it may end `clean`, by a `crash`, or never (`silence`)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(between_s)
        if end == "silence":
            await asyncio.sleep(60)
        if end == "crash":
            _cut(request)
        return response

    return answer


def stream(tokens: int = 3, between_s: float = 0.0, end: str = "clean") -> Answer:
    chunks = [event(number) for number in range(tokens)]
    return pieces(*chunks, *([DONE] if end == "clean" else []), between_s=between_s, end=end)


def crash(after_s: float = 0.0) -> Answer:
    """Cut the connection before anything has been answered."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(after_s)
        _cut(request)
        return web.Response()

    return answer


def silence() -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        await asyncio.sleep(60)
        return web.Response()

    return answer


def _cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeEngine:
    """What it received, how it answers, and how many of its answers were broken off."""

    url: str = ""
    answer: Answer = field(default_factory=whole)
    ready: Answer = field(default_factory=lambda: status(200))
    received: list[Received] = field(default_factory=list)
    running: int = 0
    aborted: int = 0

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.received.append(Received(request.path, dict(request.headers), await request.read()))
        self.running += 1
        try:
            return await self.answer(request)
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        return await self.ready(request)

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[None]:
        """Listen until the block ends; then connections are refused."""
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_post("/v1/{kind:.*}", self._complete)
        app.router.add_get("/readyz", self._ready)
        runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
            await site.start()
            self.url = f"http://127.0.0.1:{site.port}"
            yield
        finally:
            await runner.cleanup()
