import asyncio
import json
from dataclasses import replace

import aiohttp
import pytest

from llm_operator.gateway.replica import Health
from tests.gateway import fake_engine
from tests.gateway.fake_engine import Answer, event
from tests.gateway.world import QUICK, World, a_world, body, until

GONE = "http://127.0.0.1:1"  # nobody listens there


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(fake_engine.status(502), id="502"),
        pytest.param(fake_engine.status(503), id="503"),
        pytest.param(fake_engine.crash(), id="cut off before the first byte"),
        pytest.param(fake_engine.pieces(end="crash"), id="cut off after the head of its answer"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_another_replica_gets_what_one_failed(
    world: World, failing: Answer, stream: bool
) -> None:
    bad, good = await world.engine(failing), await world.engine()
    world.has(m=[bad.url, good.url])
    world.model.replicas[good.url].dispatched_tokens = 10**6  # so that the bad one is picked first
    status, _ = await world.ask(stream=stream)
    assert (status, len(bad.received), len(good.received)) == (200, 1, 1)


async def test_a_refused_connection_puts_a_replica_out_at_once(world: World) -> None:
    good = await world.engine()
    world.has(m=[GONE, good.url])
    assert [(await world.ask())[0] for _ in range(4)] == [200] * 4
    assert world.model.replicas[GONE].health is Health.OUT


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(fake_engine.status(500), id="500 is the request's fault as often as not"),
        pytest.param(fake_engine.status(429), id="429 is an answer"),
        pytest.param(fake_engine.status(400), id="400 is an answer"),
    ],
)
async def test_what_is_not_tried_again(world: World, failing: Answer) -> None:
    bad, good = await world.engine(failing), await world.engine()
    world.has(m=[bad.url, good.url])
    world.model.replicas[good.url].dispatched_tokens = 10**6
    assert (await world.ask())[0] == (await failing(None)).status  # type: ignore[arg-type]
    assert len(good.received) == 0


async def test_a_request_is_tried_twice_and_no_more(world: World) -> None:
    engines = [await world.replica(fake_engine.crash()) for _ in range(4)]
    status, error = await world.error()
    assert (status, error["code"], error["type"]) == (503, "replica_failed", "server_error")
    assert sum(len(engine.received) for engine in engines) == 2
    assert await world.metric("llm_gateway_requests_total", outcome="failed") == 1


async def test_retries_end_with_their_budget(world: World) -> None:
    engines = [await world.replica(fake_engine.crash()) for _ in range(2)]
    await asyncio.gather(*(world.ask() for _ in range(50)))
    assert sum(len(engine.received) for engine in engines) <= 50 + 20 + 5


async def test_a_request_waits_when_its_only_replica_says_it_is_not_ready() -> None:
    async with a_world(probes=True) as world:
        engine = await world.replica(fake_engine.status(503))
        answer = asyncio.create_task(world.ask())
        await until(lambda: len(world.model.line) == 1)
        engine.answer = fake_engine.whole("late")  # and /readyz says 200: the next probe sees it
        status, text = await answer
    assert (status, json.loads(text)["choices"][0]["text"]) == (200, "late")


async def test_a_request_survives_the_replacement_of_its_only_replica(world: World) -> None:
    await world.replica(fake_engine.crash(after_s=0.05))
    answer = asyncio.create_task(world.ask())
    await until(lambda: world.model.in_flight_requests == 1)
    world.has(m=[])
    await until(lambda: len(world.model.line) == 1)
    new = await world.engine()
    world.has(m=[new.url])
    assert (await answer)[0] == 200


async def test_a_stream_that_breaks_off_ends_with_an_error_event(world: World) -> None:
    crashing = await world.replica(fake_engine.stream(tokens=2, between_s=0.02, end="crash"))
    other = await world.engine()
    world.has(m=[crashing.url, other.url])
    world.model.replicas[other.url].dispatched_tokens = 10**6
    async with world.post(body(stream=True)) as response:
        text = await response.read()
        assert response.status == 200
        await until(lambda: response.connection is None)
    head, last = text[: len(event(0) + event(1))], text[len(event(0) + event(1)) :]
    assert head == event(0) + event(1)
    assert last.startswith(b"data: ")
    assert last.endswith(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "replica_failed"
    assert b"[DONE]" not in text
    assert len(other.received) == 0, "never again after the first byte"
    assert await world.metric("llm_gateway_requests_total", outcome="failed") == 1


async def test_half_an_event_never_reaches_the_client(world: World) -> None:
    half = fake_engine.pieces(event(0), b'data: {"choi', between_s=0.05, end="crash")
    await world.replica(half)
    async with world.post(body(stream=True)) as response:
        lines = [line for line in (await response.read()).split(b"\n\n") if line]
    assert [set(json.loads(line.removeprefix(b"data: "))) for line in lines] == [
        {"choices"},
        {"error"},
    ]


async def test_a_stream_that_falls_silent_ends_with_an_error_event() -> None:
    async with a_world(replace(QUICK, between_chunks_s=0.3)) as world:
        engine = await world.replica(fake_engine.stream(tokens=1, end="silence"))
        async with world.post(body(stream=True)) as response:
            text = await response.read()
        assert b'"replica_failed"' in text
        await until(lambda: engine.aborted, within_s=1.0)


async def test_a_first_token_that_does_not_come_is_a_504_and_not_tried_again() -> None:
    async with a_world(replace(QUICK, first_token_s=0.3)) as world:
        engines = [await world.replica(fake_engine.silence()) for _ in range(2)]
        status, error = await world.error(body(stream=True))
        assert (status, error["code"]) == (504, "first_token_timeout")
        await until(lambda: sum(engine.aborted for engine in engines) == 1, within_s=1.0)
        assert sum(len(engine.received) for engine in engines) == 1


async def test_slow_tokens_are_no_failure() -> None:
    async with a_world(replace(QUICK, first_token_s=0.5, between_chunks_s=1.5)) as world:
        await world.replica(fake_engine.stream(tokens=4, between_s=0.6))
        _, text = await world.ask(stream=True)
    assert text.endswith("data: [DONE]\n\n")


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    async with a_world(replace(QUICK, between_chunks_s=0.5)) as world:
        flood = fake_engine.pieces(*[b"data: " + b"x" * 60_000 + b"\n\n"] * 500)
        engine = await world.replica(flood)
        async with world.post(body(stream=True)) as response:
            await until(lambda: engine.aborted, within_s=5.0)
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        await until(lambda: world.model.in_flight_requests == 0, within_s=1.0)


async def test_probes_notice_a_dead_replica_and_its_return() -> None:
    async with a_world(probes=True) as world:
        dead, alive = await world.engine(), await world.replica()
        async with dead.listening():
            world.has(m=[dead.url, alive.url])
        replica = world.model.replicas[dead.url]
        await until(lambda: replica.health is Health.OUT, within_s=3.0)
        async with dead.listening(port=int(dead.url.rsplit(":", 1)[1])):
            await until(lambda: replica.health is Health.UP, within_s=3.0)


async def test_probes_that_time_out_make_a_replica_the_last_choice() -> None:
    settings = replace(QUICK, probe_timeout_s=0.1)
    async with a_world(settings, probes=True) as world:
        hung, well = await world.engine(), await world.engine()
        hung.ready = fake_engine.silence()
        world.has(m=[hung.url, well.url])
        await until(lambda: world.model.replicas[hung.url].health is Health.SILENT, within_s=5.0)
        await asyncio.gather(*(world.ask() for _ in range(4)))
        assert (len(hung.received), len(well.received)) == (0, 4)
        world.has(m=[hung.url])
        assert (await world.ask())[0] == 200, "better a slow replica than none"
