"""Clients that hold a connection and do nothing with it. Real sockets, a hand-stepped clock."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import uvicorn

from llm_engine.server.connections import (
    BODY_S,
    HEADER_S,
    KEEP_ALIVE_S,
    MOST_CONNECTIONS,
    UNREAD_S,
    Connection,
    Connections,
)
from llm_engine.server.errors import ApiError
from tests.server.served import until

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


@dataclass
class World:
    """An HTTP server that answers `/endless` without end, and everything else once it is read."""

    port: int
    opened: Callable[[], set[Connection]]
    connections: Connections
    now_s: list[float]
    sent: list[int] = field(default_factory=list)

    async def client(self, words: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        opened = len(self.opened())
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024)
        writer.write(words)
        await until(lambda: len(self.opened()) > opened)
        return reader, writer

    def pass_time(self, seconds: float) -> int:
        """Let time pass between two looks; return how many connections the second one closed."""
        self.connections.sweep()
        self.now_s[0] += seconds
        return self.connections.sweep()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    listener = socket.create_server(("127.0.0.1", 0))
    sent: list[int] = []

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["path"] == "/endless" and len(sent) < 1000:
            await send({"type": "http.response.body", "body": b"x" * 65521, "more_body": True})
            sent.append(1)
        await send({"type": "http.response.body", "body": b"done"})

    http = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
    serving = asyncio.create_task(http.serve([listener]))
    await until(lambda: http.started)
    now_s = [0.0]

    def opened() -> set[Connection]:
        return cast("set[Connection]", http.server_state.connections)

    connections = Connections(opened, lambda: now_s[0])
    yield World(listener.getsockname()[1], opened, connections, now_s, sent)
    http.should_exit = http.force_exit = True
    await serving


@pytest.mark.parametrize(
    ("words", "limit_s"),
    [
        pytest.param(b"", HEADER_S, id="says nothing"),
        pytest.param(b"POST / HTTP/1.1\r\nHost:", HEADER_S, id="never ends its header"),
        pytest.param(POST + b"123", BODY_S, id="never ends its body"),
    ],
)
async def test_a_client_that_does_not_finish_asking_is_closed(
    world: World, words: bytes, limit_s: float
) -> None:
    reader, writer = await world.client(words)
    if words.startswith(POST):
        (connection,) = world.opened()
        await until(lambda: connection.cycle is not None)
    assert world.pass_time(limit_s) == 0
    assert world.pass_time(1) == 1
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    await until(lambda: not world.opened())


async def test_a_client_that_never_reads_is_closed_and_what_it_is_sent_is_bounded(
    world: World,
) -> None:
    _, writer = await world.client(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: bool(world.sent))
    # As long as the kernel's buffers take something, it moves.
    await until(lambda: world.pass_time(UNREAD_S + 1) == 1)
    assert len(world.sent) < 1000
    await until(lambda: not world.opened())
    writer.close()


async def test_a_client_that_reads_slowly_stays(world: World) -> None:
    reader, writer = await world.client(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: bool(world.sent))
    for _ in range(5):
        before = len(world.sent)
        while len(world.sent) == before:  # the kernel takes a while to pass room on
            await reader.read(1 << 20)
        assert world.pass_time(UNREAD_S / 2) == 0
    writer.close()
    await until(lambda: not world.opened())


async def test_a_pause_between_requests_is_left_to_uvicorn_unless_it_is_abused(
    world: World,
) -> None:
    reader, writer = await world.client(POST + b"12345")
    await reader.readuntil(b"\r\n0\r\n\r\n")
    assert world.pass_time(KEEP_ALIVE_S) == 0
    writer.write(b"POST / HT")
    assert world.pass_time(HEADER_S) == 0
    assert world.pass_time(1) == 1
    writer.close()


async def test_a_connection_too_many_is_refused_in_words() -> None:
    class Crowd(set[Any]):
        def __len__(self) -> int:
            return MOST_CONNECTIONS + 1

    with pytest.raises(ApiError, match="connections are open") as refusal:
        Connections(Crowd, lambda: 0.0).check_room()
    assert refusal.value.status == 503
    assert refusal.value.headers == {"Retry-After": "1", "Connection": "close"}
