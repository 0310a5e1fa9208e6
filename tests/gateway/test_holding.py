import asyncio
from dataclasses import replace

import aiohttp
import pytest

from tests.gateway import fake_engine
from tests.gateway.world import QUICK, World, a_world, body, until


async def test_a_request_waits_for_the_first_replica(world: World) -> None:
    world.has(m=[])
    answer = asyncio.create_task(world.ask())
    await until(lambda: len(world.model.line) == 1)
    await asyncio.sleep(0.05)
    assert await world.metric("llm_gateway_held_requests", model="m") == 1
    assert await world.metric("llm_gateway_oldest_wait_seconds", model="m") >= 0.05
    assert await world.metric("llm_gateway_arrivals_total", model="m") == 1
    await world.replica()
    assert (await answer)[0] == 200
    assert await world.metric("llm_gateway_held_requests", model="m") == 0
    assert await world.metric("llm_gateway_queue_seconds_sum", model="m") >= 0.05


async def test_held_requests_go_in_the_order_in_which_they_came() -> None:
    async with a_world(replace(QUICK, replica_requests=1)) as world:
        world.has(m=[])
        answers = []
        for number in range(5):
            answers.append(asyncio.create_task(world.ask(prompt=str(number))))
            await until(lambda: len(world.model.line) == len(answers))
        engine = await world.replica()
        await asyncio.gather(*answers)
    assert [received.json["prompt"] for received in engine.received] == list("01234")


async def test_a_new_request_does_not_overtake_those_held() -> None:
    async with a_world(replace(QUICK, replica_requests=1)) as world:
        engine = await world.replica(fake_engine.status(200, after_s=0.1))
        answers = []
        for number in range(4):
            answers.append(asyncio.create_task(world.ask(prompt=str(number))))
            await until(lambda: len(world.model.line) + len(engine.received) == len(answers))
        await asyncio.gather(*answers)
        assert engine.running == 0
    assert [received.json["prompt"] for received in engine.received] == list("0123")


@pytest.mark.parametrize(
    ("replicas", "status", "code"),
    [
        pytest.param(0, 503, "model_not_ready", id="without replicas: come back later"),
        pytest.param(1, 429, "model_busy", id="with busy replicas: come back soon"),
    ],
)
async def test_a_full_line_refuses_at_once(replicas: int, status: int, code: str) -> None:
    async with a_world(replace(QUICK, held_requests=2, replica_requests=1)) as world:
        world.has(m=[])
        if replicas:
            await world.replica(fake_engine.silence())
        waiting = [asyncio.create_task(world.ask()) for _ in range(2 + replicas)]
        await until(lambda: len(world.model.line) == 2)
        async with world.post() as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == code
            assert int(response.headers["Retry-After"]) >= 1
        for task in waiting:
            task.cancel()


async def test_the_line_is_bounded_in_bytes_too() -> None:
    async with a_world(replace(QUICK, held_bytes=1000)) as world:
        world.has(m=[])
        waiting = asyncio.create_task(world.ask(prompt="x" * 600))
        await until(lambda: len(world.model.line) == 1)
        assert (await world.ask(prompt="x" * 600))[0] == 503
        waiting.cancel()


@pytest.mark.parametrize(
    ("settings", "replicas", "status"),
    [
        pytest.param(replace(QUICK, cold_start_s=0.2), 0, 503, id="a cold start that takes long"),
        pytest.param(
            replace(QUICK, busy_wait_s=0.2, replica_requests=1),
            1,
            429,
            id="replicas that stay busy",
        ),
    ],
)
async def test_waiting_ends_at_the_deadline(settings: object, replicas: int, status: int) -> None:
    async with a_world(settings) as world:  # type: ignore[arg-type]
        world.has(m=[])
        if replicas:
            await world.replica(fake_engine.silence())
            busy = asyncio.create_task(world.ask())
            await until(lambda: world.model.in_flight_requests == 1)
        async with world.post() as response:
            assert response.status == status
            assert "Retry-After" in response.headers
        assert len(world.model.line) == 0
        if replicas:
            busy.cancel()


async def test_an_unknown_model_is_a_404_at_once(world: World) -> None:
    world.has(m=[])
    status, error = await world.error(body(model="other"))
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")


async def test_requests_of_a_deleted_model_are_refused_at_once(world: World) -> None:
    world.has(m=[])
    answer = asyncio.create_task(world.error())
    await until(lambda: len(world.model.line) == 1)
    world.has(other=[])
    status, error = await answer
    assert (status, error["code"]) == (404, "model_not_found")


async def test_a_client_that_leaves_the_line_is_never_dispatched(world: World) -> None:
    world.has(m=[])
    with pytest.raises(TimeoutError):
        await world.post(timeout=aiohttp.ClientTimeout(total=0.2))
    await until(lambda: len(world.model.line) == 0, within_s=1.0)
    engine = await world.replica()
    await world.ask(prompt="after")
    assert [received.json["prompt"] for received in engine.received] == ["after"]
    assert await world.metric("llm_gateway_requests_total", outcome="client_gone") == 1


async def test_scaling_to_zero_with_a_stream_open_lets_it_finish(world: World) -> None:
    await world.replica(fake_engine.stream(tokens=4, between_s=0.05))
    async with world.post(body(stream=True)) as response:
        await response.content.readany()
        world.has(m=[])
        assert (await response.read()).endswith(b"[DONE]\n\n")
    assert world.model.in_flight_requests == 0


async def test_before_the_models_are_known_nothing_is_called_missing(world: World) -> None:
    status, error = await world.error()
    assert (status, error["code"]) == (503, "starting")
    async with world.client.get(world.status_url + "/readyz") as response:
        assert response.status == 503
    world.has()
    assert (await world.error())[0] == 404
    async with world.client.get(world.status_url + "/readyz") as response:
        assert response.status == 200
