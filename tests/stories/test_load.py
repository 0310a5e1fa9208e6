"""The load generator that finds no failed stream must be one that would have found it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from e2e.load import Answer, Client, Load, percentile


def chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


ROLE = {"choices": [{"delta": {"role": "assistant"}}]}
USAGE = {"choices": [], "usage": {"completion_tokens": 2}}
ERROR = {"error": {"message": "replica lost", "type": "service_unavailable_error"}}
DONE = "[DONE]"


@asynccontextmanager
async def gateway(*events: object, status: int = 200, cut: bool = False) -> AsyncIterator[Client]:
    """Serve one scripted stream to everybody; `cut` drops the connection after the events."""

    async def chat(request: web.BaseRequest) -> web.StreamResponse:
        if status != 200:
            return web.json_response(ERROR, status=status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            await response.write(f"data: {data}\n\n".encode())
        if cut and request.transport:
            request.transport.abort()
        return response

    server = web.Server(chat)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{port}", "tiny", timeout_s=5)
    finally:
        await runner.cleanup()


async def test_a_whole_stream_is_no_failure() -> None:
    async with gateway(ROLE, chunk("Pa"), chunk("ris"), USAGE, DONE) as client:
        answer = await client.ask("?")
    assert (answer.failure, answer.text, answer.tokens) == (None, "Paris", 2)
    assert answer.first_token_s is not None
    assert answer.per_token_s is not None


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        pytest.param({"events": (chunk("Pa"),)}, "without [DONE]", id="ended early"),
        pytest.param({"events": (chunk("Pa"),), "cut": True}, "Error", id="connection cut"),
        pytest.param({"events": (chunk("Pa"), ERROR)}, "replica lost", id="error in the stream"),
        pytest.param({"events": (), "status": 503}, "503", id="refused"),
        pytest.param({"events": ("not json",)}, "JSONDecodeError", id="not JSON"),
    ],
)
async def test_anything_else_is_a_failure(script: dict[str, Any], complaint: str) -> None:
    events = script.pop("events")
    async with gateway(*events, **script) as client:
        answer = await client.ask("?")
    assert answer.failure is not None
    assert complaint in answer.failure


async def test_nobody_there_is_a_failure() -> None:
    async with aiohttp.ClientSession() as session:
        answer = await Client(session, "http://127.0.0.1:1", "tiny").ask("?")
    assert answer.failure is not None
    assert answer.first_token_s is None


async def test_every_request_sent_is_accounted_for() -> None:
    async with gateway(chunk("Paris"), USAGE, DONE) as client:
        load = Load(client, requests_per_s=50)
        async with load.sending():
            await asyncio.sleep(0.5)
            load.requests_per_s = 0
        assert load.sent == len(load.answers) > 0
        assert (load.open_requests, load.unsent, load.failures) == (0, 0, [])


async def test_what_cannot_be_sent_is_counted() -> None:
    async with gateway(chunk("Paris"), USAGE, DONE) as client:
        load = Load(client, requests_per_s=200, most_open=0)
        async with load.sending():
            await asyncio.sleep(0.2)
    assert load.sent == 0
    assert load.unsent > 0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        pytest.param([], 0.95, None, id="nothing known"),
        pytest.param([None, 3.0], 0.95, 3.0, id="what is unknown does not count"),
        pytest.param([4.0, 1.0, 2.0, 3.0], 0.5, 2.0, id="median of four"),
        pytest.param(list(range(1, 101)), 0.95, 95, id="95 of 100"),
        pytest.param([7.0], 0.01, 7.0, id="one value is every percentile"),
    ],
)
def test_percentile(values: list[float | None], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


def test_time_per_token_leaves_the_first_token_out() -> None:
    answer = Answer(sent_s=10, ended_s=14, first_token_s=1, tokens=4, text="", failure=None)
    assert answer.per_token_s == 1.0
