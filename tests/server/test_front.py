import json
from typing import Any

import pytest

from llm_engine.server.front import Front, Message, Receive, Send
from llm_engine.server.lifecycle import Lifecycle


async def ask(front: Front, path: str, method: str = "GET") -> tuple[int, Any, dict[str, str]]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await front({"type": "http", "method": method, "path": path}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(sent[1]["body"]), headers


async def statuses(front: Front) -> dict[str, int]:
    return {p: (await ask(front, p))[0] for p in ("/livez", "/health", "/readyz", "/startupz")}


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle(0.0)


@pytest.fixture
def front(lifecycle: Lifecycle) -> Front:
    return Front(lifecycle)


async def test_while_loading_the_process_lives_and_is_not_ready(front: Front) -> None:
    expected = {"/livez": 200, "/health": 503, "/readyz": 503, "/startupz": 503}
    assert await statuses(front) == expected


async def test_once_started_all_probes_agree(front: Front, lifecycle: Lifecycle) -> None:
    lifecycle.finish_start()
    expected = {"/livez": 200, "/health": 200, "/readyz": 200, "/startupz": 200}
    assert await statuses(front) == expected


async def test_draining_takes_away_readiness_only(front: Front, lifecycle: Lifecycle) -> None:
    lifecycle.finish_start()
    lifecycle.draining = True
    expected = {"/livez": 200, "/health": 200, "/readyz": 503, "/startupz": 200}
    assert await statuses(front) == expected


async def test_a_stalled_engine_is_neither_alive_nor_ready(
    front: Front, lifecycle: Lifecycle
) -> None:
    lifecycle.finish_start()
    front.why_stalled = lambda: "nothing was computed for 31 s"
    status, report, _ = await ask(front, "/livez")
    assert (status, report["reason"]) == (503, "nothing was computed for 31 s")
    assert (await ask(front, "/readyz"))[0] == 503


async def test_startupz_tells_the_phase_and_its_seconds(front: Front, lifecycle: Lifecycle) -> None:
    lifecycle.enter("weights")
    _, report, _ = await ask(front, "/startupz")
    assert report["started"] is False
    assert report["phase"] == "weights"
    assert list(report["phases"]) == ["process", "weights"]
    assert report["seconds"] == pytest.approx(sum(report["phases"].values()), abs=0.1)


async def test_the_api_is_refused_while_loading(front: Front, lifecycle: Lifecycle) -> None:
    lifecycle.enter("weights")
    status, body, headers = await ask(front, "/v1/models")
    assert (status, headers["retry-after"]) == (503, "5")
    assert body["error"]["code"] == "model_loading"
    assert "weights" in body["error"]["message"]


async def test_what_is_no_probe_goes_to_the_api_and_counts_while_it_runs(front: Front) -> None:
    seen: list[int] = []

    async def api(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        seen.append(front.in_flight)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    front.api = api
    assert (await ask(front, "/v1/models"))[0] == 200
    assert (await ask(front, "/livez", "POST"))[0] == 200
    assert (seen, front.in_flight) == ([1, 1], 0)
