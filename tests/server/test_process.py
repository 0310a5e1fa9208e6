"""The life of the process: probes while loading, drain, exit codes. Real ports, a fake engine."""

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.server.running import free_port, running
from tests.server.served import events

ANSWER = "Paris é 🙂 is the capital."


def fake_server(drain_s: float, step_s: float, *load_s: str) -> tuple[tuple[str, ...], int]:
    port = free_port()
    words = ("-m", "tests.server.fake_server", str(port), str(drain_s), str(step_s), *load_s)
    return words, port


@pytest.mark.parametrize("how", ["SIGTERM", "POST /drain"])
async def test_a_drain_lets_running_streams_finish_and_takes_nothing_new(how: str) -> None:
    words, port = fake_server(30, 0.1)
    async with running(*words, port=port) as server:
        await server.wait_for("/readyz")
        streams = [asyncio.create_task(server.stream()) for _ in range(3)]
        await server.wait_for_line('vllm:num_requests_running{model_name="fake"} 3.0')
        if how == "SIGTERM":
            server.process.send_signal(signal.SIGTERM)
        else:
            assert (await server.client.post("/drain")).status_code == 202
        await server.wait_for("/readyz", 503)
        refused = await server.client.post(
            "/v1/completions", json={"model": "fake", "prompt": "hi"}
        )
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert await server.status("/livez") == 200
        for body in await asyncio.gather(*streams):
            *chunks, end = events(body)
            assert end == "[DONE]"
            assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == ANSWER
        assert await server.exit_code() == 0


async def test_a_stream_that_outlives_the_drain_ends_with_an_error_event() -> None:
    words, port = fake_server(0.5, 1.0)
    async with running(*words, port=port) as server:
        await server.wait_for("/readyz")
        stream = asyncio.create_task(server.stream())
        await asyncio.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        chunks = events(await stream)
        assert chunks[-1]["error"]["code"] == "aborted"
        assert await server.exit_code() == 0


async def test_probes_answer_while_the_model_loads_and_sigterm_ends_it_at_once() -> None:
    words, port = fake_server(30, 0.1, "60")
    async with running(*words, port=port) as server:
        await server.wait_for("/livez")
        started = await server.client.get("/startupz")
        assert (started.status_code, started.json()["phase"]) == (503, "load")
        assert await server.status("/readyz") == 503
        refused = await server.client.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
        server.process.send_signal(signal.SIGTERM)
        assert await server.exit_code() == 0


async def test_a_model_that_is_missing_is_named_and_ends_the_process(tmp_path: Path) -> None:
    word = tmp_path / "termination-log"
    port = free_port()
    command = ("-m", "llm_engine.cli", "serve", str(tmp_path / "none"), "--port", str(port))
    environment = {"LLM_ENGINE_TERMINATION_LOG": str(word)}
    async with running(*command, port=port, environment=environment) as server:
        assert await server.exit_code() == 3
        said = (await server.process.communicate())[1].decode().splitlines()
    assert '"reason":"ModelNotFound"' in word.read_text()
    assert said[-1].startswith("llm-engine: ModelNotFound: ")


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = ("-m", "llm_engine.cli", "serve", str(tmp_path), "--port", str(port))
        async with running(*command, port=port) as server:
            assert await server.exit_code() == 3
            said = (await server.process.communicate())[1].decode()
    assert f"{port}" in said
    assert "--port" in said
