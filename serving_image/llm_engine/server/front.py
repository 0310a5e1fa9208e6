"""The ASGI application that the port answers with from the first moment.

It knows the probes and nothing else. FastAPI, pydantic and torch are loaded behind its back; when
the model is ready the API is put in, and everything that is no probe goes there.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from llm_engine.server.errors import ApiError, not_ready
from llm_engine.server.lifecycle import Lifecycle

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Front:
    """Answers probes; passes the rest on once there is something to pass it to.

    api          set when the model is loaded
    in_flight    requests that the API is answering
    idle         set while there are none
    why_stalled  tells why the engine makes no progress, or None while it does or is idle
    check_room   raises `ApiError` when no more requests can be taken in at all
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self.api: Application | None = None
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.why_stalled: Callable[[], str | None] = lambda: None
        self.check_room: Callable[[], None] = lambda: None
        self._probes: dict[str, Callable[[], tuple[int, object]]] = {
            "/livez": self._live,
            "/health": self._healthy,
            "/readyz": self._ready,
            "/startupz": self._startup,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        probe = self._probes.get(scope["path"])
        if probe is not None and scope["method"] in ("GET", "HEAD"):
            status, report = probe()
            await _respond(send, status, json.dumps(report).encode())
            return
        try:
            self.check_room()
            if self.api is None:
                raise not_ready(self._lifecycle.phase)
        except ApiError as error:
            await _respond(send, error.status, error.body(), error)
        else:
            await self._pass_on(self.api, scope, receive, send)

    async def _pass_on(
        self, api: Application, scope: Message, receive: Receive, send: Send
    ) -> None:
        self.in_flight += 1
        self.idle.clear()
        try:
            await api(scope, receive, send)
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self.idle.set()

    def _live(self) -> tuple[int, object]:
        reason = self.why_stalled()
        if reason is None:
            return 200, {"live": True}
        return 503, {"live": False, "reason": reason}

    def _healthy(self) -> tuple[int, object]:
        """Mean what vLLM's clients mean by it: up to serve, and alive."""
        return self._live() if self._lifecycle.started else self._ready()

    def _ready(self) -> tuple[int, object]:
        ready = self._lifecycle.ready and self.why_stalled() is None
        return 200 if ready else 503, {"ready": ready, "phase": self._lifecycle.phase}

    def _startup(self) -> tuple[int, object]:
        lifecycle = self._lifecycle
        phases = {name: round(s, 3) for name, s in lifecycle.seconds_by_phase().items()}
        report = {
            "started": lifecycle.started,
            "phase": lifecycle.phase,
            "seconds": round(lifecycle.start_seconds(), 3),
            "phases": phases,
        }
        return 200 if lifecycle.started else 503, report


async def _respond(send: Send, status: int, body: bytes, error: ApiError | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if error is not None:
        headers += [(name.lower().encode(), text.encode()) for name, text in error.headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
