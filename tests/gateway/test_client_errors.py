import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.world import QUICK, World, a_world, body

ERROR_FIELDS = {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/", 404, id="the root"),
        pytest.param("GET", "/v1/nothing", 404, id="an unknown path"),
        pytest.param("GET", "/metrics", 404, id="metrics are on the other port"),
        pytest.param("GET", "/docs", 404, id="no documentation pages"),
        pytest.param("POST", "/v1/completions/", 404, id="a slash too many"),
        pytest.param("POST", "//v1/completions", 404, id="two slashes"),
        pytest.param("POST", "/v1/%63ompletions", 404, id="a percent-encoded path"),
        pytest.param("POST", "/v1/x/../completions", 404, id="dots"),
        pytest.param("GET", "/v1/completions", 405, id="GET of a POST path"),
        pytest.param("DELETE", "/v1/chat/completions", 405, id="DELETE"),
        pytest.param("POST", "/v1/models", 405, id="POST to the list"),
        pytest.param("OPTIONS", "/v1/models", 405, id="OPTIONS"),
    ],
)
async def test_other_paths_and_methods(world: World, method: str, path: str, status: int) -> None:
    world.has(m=[])
    answer = await raw(world, f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert answer.status == status
    assert set(answer.error) == ERROR_FIELDS
    assert ("Allow" in answer.headers) is (status == 405)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Content-Type": "text/plain"}, 415, id="plain text"),
        pytest.param(
            {"Content-Type": "application/x-www-form-urlencoded"}, 415, id="what curl -d sends"
        ),
        pytest.param({"Content-Type": "multipart/form-data"}, 415, id="a form"),
        pytest.param({"Content-Encoding": "gzip"}, 415, id="a gzip bomb"),
        pytest.param({"Content-Type": "application/json; charset=utf-8"}, 404, id="with a charset"),
    ],
)
async def test_content_types(world: World, headers: dict[str, str], status: int) -> None:
    world.has(m=[])
    got, error = await world.error(body(model="unknown"), headers=headers)
    assert (got, set(error)) == (status, ERROR_FIELDS)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"model": "m"', id="truncated"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b'{"model": "\xff"}', id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"model": {}}', id="an object for a model"),
    ],
)
async def test_bad_bodies_are_a_400_and_reach_no_engine(world: World, data: bytes) -> None:
    engine = await world.replica()
    status, error = await world.error(data)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert set(error) == ERROR_FIELDS
    assert engine.received == []


async def test_a_lone_surrogate_in_the_model_name_can_be_answered(world: World) -> None:
    world.has(m=[])
    status, error = await world.error(b'{"model": "\\ud800"}')
    assert (status, error["code"]) == (400, "invalid_json")


async def test_an_unknown_models_long_name_is_not_echoed_whole(world: World) -> None:
    world.has(m=[])
    status, error = await world.error(body(model="x" * 100_000))
    assert status == 404
    assert len(error["message"]) < 400


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_beyond_the_limit_is_a_413(chunked: bool) -> None:
    async with a_world(replace(QUICK, max_body_bytes=10_000)) as world:
        engine = await world.replica()

        async def endless() -> Any:
            for _ in range(200):
                yield b" " * 1000

        data: Any = endless() if chunked else b" " * 20_000
        status, error = await world.error(data)
        assert (status, error["code"]) == (413, "body_too_large")
        assert engine.received == []
        assert (await world.ask(prompt="x" * 9000))[0] == 200, "and just below it is fine"


async def test_a_body_that_does_not_come_is_a_408() -> None:
    async with a_world(replace(QUICK, read_body_s=0.2)) as world:
        world.has(m=[])
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        answer = await raw(world, head + "Content-Length: 100\r\n\r\n{")
    assert (answer.status, answer.error["code"]) == (408, "body_timeout")


@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param("SECRET\r\n\r\n", id="no HTTP at all"),
        pytest.param("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 with prior knowledge"),
        pytest.param(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="a length and chunks",
        ),
        pytest.param(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            "Content-Length: 6\r\n\r\nhello",
            id="two lengths",
        ),
        pytest.param(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
            id="an unknown framing",
        ),
        pytest.param("GET /v1/models HTTP/1.1\r\nHost : x\r\n\r\n", id="a space before the colon"),
        pytest.param(
            "GET /v1/models HTTP/1.1\r\nHost: x\r\n" + "a: b\r\n" * 1000 + "\r\n",
            id="1,000 headers",
        ),
        pytest.param(
            "GET /v1/models HTTP/1.1\r\nHost: x\r\na: " + "b" * 65536 + "\r\n\r\n",
            id="64 kB header",
        ),
    ],
)
async def test_what_is_not_well_formed_http_is_a_400_and_the_end(
    world: World, request_text: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.has(m=[])
    answer = await raw(world, request_text, to_the_end=True)
    assert (answer.status, answer.error["code"]) == (400, "bad_http")
    assert "SECRET" not in caplog.text


async def test_an_upgrade_is_not_taken_up(world: World) -> None:
    world.has(m=[])
    upgrade = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert (await raw(world, upgrade)).status == 404


async def test_http_1_0_gets_its_answer(world: World) -> None:
    world.has(m=[])
    answer = await raw(world, "GET /v1/models HTTP/1.0\r\n\r\n", to_the_end=True)
    assert answer.status == 200


async def test_a_connection_survives_a_refusal(world: World) -> None:
    world.has(m=[])
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.client_site.port)
    for _ in range(2):
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_answer(reader)).status == 404
    writer.close()


class RawAnswer:
    def __init__(self, head: str, text: bytes) -> None:
        line, *headers = head.split("\r\n")
        self.status = int(line.split()[1])
        self.headers = dict(header.split(": ", 1) for header in headers)
        self.json = json.loads(text)

    @property
    def error(self) -> Any:
        return self.json["error"]


async def read_answer(reader: asyncio.StreamReader) -> RawAnswer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
    return RawAnswer(head, await reader.readexactly(length))


async def raw(world: World, text: str, to_the_end: bool = False) -> RawAnswer:
    """Send exactly these bytes; `to_the_end` also expects the connection to be closed."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.client_site.port)
        writer.write(text.encode())
        answer = await read_answer(reader)
        if to_the_end:
            assert await reader.read() == b""
        writer.close()
        return answer
