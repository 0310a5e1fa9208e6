import asyncio
from dataclasses import replace

from tests.gateway import fake_engine
from tests.gateway.world import QUICK, World, a_world, body

STREAMS = 250
TOKENS = 3


# One event loop plays clients, gateway and engines: it lags by more than a connect may take.
PATIENT = replace(QUICK, connect_s=30.0, first_token_s=60.0, between_chunks_s=60.0)


async def test_many_streams_at_once_lose_no_token() -> None:
    async with a_world(PATIENT) as world:
        await many_streams(world)


async def many_streams(world: World) -> None:
    engines = [await world.engine(fake_engine.stream(TOKENS, between_s=1.0)) for _ in range(5)]
    world.has(m=[engine.url for engine in engines])
    expected = b"".join(fake_engine.event(n) for n in range(TOKENS)) + fake_engine.DONE

    async def one() -> bytes:
        async with world.post(body(stream=True)) as response:
            return await response.read()

    answers = [asyncio.create_task(one()) for _ in range(STREAMS)]
    most = 0
    while not all(answer.done() for answer in answers):
        most = max(most, world.model.in_flight_requests)
        await asyncio.sleep(0.05)
    assert all(answer.result() == expected for answer in answers)
    assert most > STREAMS / 2, "they did run side by side"
    assert {len(engine.received) for engine in engines} == {STREAMS // len(engines)}
    assert world.model.in_flight_requests == 0
    assert all(r.dispatched_tokens == 0 for r in world.model.replicas.values())
