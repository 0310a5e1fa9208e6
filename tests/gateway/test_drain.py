import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from tests.gateway import fake_engine
from tests.gateway.world import QUICK, World, a_world, body, until


async def readiness(world: World) -> int:
    async with world.client.get(world.status_url + "/readyz") as response:
        return response.status


async def test_a_draining_gateway_says_so_and_still_serves_for_a_while() -> None:
    async with a_world(replace(QUICK, drain_delay_s=0.5)) as world:
        await world.replica()
        draining = asyncio.create_task(world.gateway.drain())
        await asyncio.sleep(0.05)
        assert await readiness(world) == 503
        async with world.post() as response:
            assert response.status == 200
            assert response.headers["Connection"] == "close", (
                "so that the client comes back elsewhere"
            )
        await draining
        with pytest.raises(aiohttp.ClientConnectorError):
            await world.ask()


async def test_streams_that_run_are_finished(world: World) -> None:
    await world.replica(fake_engine.stream(tokens=10, between_s=0.1))
    async with world.post(body(stream=True)) as response:
        await response.content.readany()
        draining = asyncio.create_task(world.gateway.drain())
        text = await response.read()
    assert text.endswith(b"[DONE]\n\n")
    await asyncio.wait_for(draining, 1.0)


async def test_a_held_request_is_answered_when_the_time_is_over() -> None:
    async with a_world(replace(QUICK, drain_s=0.3)) as world:
        world.has(m=[])
        answer = asyncio.create_task(world.error())
        await until(lambda: len(world.model.line) == 1)
        await world.gateway.drain()
        status, error = await answer
    assert (status, error["code"]) == (503, "draining")


@asynccontextmanager
async def a_process(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the real command on free ports; yields it and the line that says where it serves."""
    command = [sys.executable, "-m", "llm_operator.cli", "gateway", "--host", "127.0.0.1"]
    command += ["--port", "0", "--metrics-port", "0", "--drain-delay-seconds", "0.2", *words]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        yield process, (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_process_ends_cleanly_after_its_last_stream() -> None:
    engine = fake_engine.FakeEngine(answer=fake_engine.stream(tokens=10, between_s=0.1))
    async with engine.listening(), a_process("--static", f"m={engine.url}") as (process, line):
        port = int(line.split("serving on port ")[1].split(",")[0])
        async with (
            aiohttp.ClientSession() as client,
            client.post(
                f"http://127.0.0.1:{port}/v1/completions",
                data=body(stream=True),
                headers={"Content-Type": "application/json"},
            ) as response,
        ):
            await response.content.readany()
            process.send_signal(signal.SIGTERM)
            assert (await response.read()).endswith(b"[DONE]\n\n")
        assert await asyncio.wait_for(process.wait(), 10) == 0
