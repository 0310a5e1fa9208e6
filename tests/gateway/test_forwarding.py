import json

import aiohttp
import pytest

from tests.gateway import fake_engine
from tests.gateway.fake_engine import DONE, event
from tests.gateway.world import World, body, until


async def test_a_stream_arrives_as_the_engine_wrote_it(world: World) -> None:
    await world.replica(fake_engine.stream(tokens=5))
    async with world.post(body(stream=True)) as response:
        text = await response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
    assert text == b"".join(event(n) for n in range(5)) + DONE


async def test_tokens_arrive_one_by_one(world: World) -> None:
    await world.replica(fake_engine.stream(tokens=3, between_s=0.1))
    async with world.post(body(stream=True)) as response:
        chunks = [chunk async for chunk in response.content.iter_any()]
    assert len(chunks) >= 3


async def test_events_cut_anywhere_by_the_engine_arrive_whole(world: World) -> None:
    await world.replica(fake_engine.pieces(b"data: 1\n", b"\nda", b"ta: 2\n\n", between_s=0.02))
    async with world.post(body(stream=True)) as response:
        assert await response.read() == b"data: 1\n\ndata: 2\n\n"


async def test_the_engine_gets_the_clients_own_bytes(world: World) -> None:
    engine = await world.replica()
    odd = b'{ "prompt" : "\\u00e9 \xc3\xa9", "model":"m",\n "top_k": 3 }'
    async with world.post(odd, path="/v1/chat/completions") as response:
        assert response.status == 200
    assert engine.received[0].body == odd
    assert engine.received[0].path == "/v1/chat/completions"


async def test_identity_and_hop_by_hop_headers_end_at_the_gateway(world: World) -> None:
    engine = await world.replica(
        fake_engine.whole(headers={"X-Internal": "1", "Set-Cookie": "a=b"})
    )
    headers = {
        "Authorization": "Bearer secret",
        "Cookie": "a=b",
        "X-Forwarded-For": "1.2.3.4",
        "X-User-Id": "root",
        "Connection": "keep-alive, X-Api-Key",
        "X-Api-Key": "k",
        "Traceparent": "00-1-2-03",
    }
    async with world.post(headers=headers) as response:
        assert "X-Internal" not in response.headers
        assert "Set-Cookie" not in response.headers
    names = {name.lower() for name in engine.received[0].headers}
    let_through = {"accept", "content-type", "traceparent"}
    assert names == let_through | {"host", "content-length", "x-request-id"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("my-id_1.2", True, id="a plain id is kept"),
        pytest.param("a" * 129, False, id="one that is too long is replaced"),
        pytest.param("${jndi:ldap://x}", False, id="one with other signs is replaced"),
        pytest.param("", False, id="an empty one is replaced"),
    ],
)
async def test_the_request_id(world: World, given: str, kept: bool) -> None:
    engine = await world.replica()
    async with world.post(headers={"X-Request-Id": given}) as response:
        answered = response.headers["X-Request-Id"]
    assert (answered == given) is kept
    assert {k.lower(): v for k, v in engine.received[0].headers.items()}["x-request-id"] == answered


async def test_an_error_of_the_engine_is_passed_on(world: World) -> None:
    error = json.dumps({"error": {"message": "too long", "code": "context_length_exceeded"}})
    await world.replica(fake_engine.status(400, error))
    assert await world.ask() == (400, error)
    assert await world.metric("llm_gateway_requests_total", model="m", outcome="rejected") == 1


async def test_models_are_listed_with_or_without_replicas(world: World) -> None:
    world.has(b=[], a=["http://127.0.0.1:1"])
    async with world.client.get(world.url + "/v1/models") as response:
        listed = await response.json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["a", "b"]
    assert listed["data"][0] == {
        "id": "a",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "llm-operator",
    }


async def test_requests_go_to_the_replica_with_fewer_outstanding_tokens(world: World) -> None:
    slow = await world.engine(fake_engine.stream(tokens=2, between_s=1.0))
    quick = await world.engine()
    world.has(m=[slow.url])
    async with world.post(body(stream=True, max_tokens=4000)) as response:
        await response.content.readany()
        world.has(m=[slow.url, quick.url])
        for _ in range(6):
            await world.ask(max_tokens=10)
    assert (len(slow.received), len(quick.received)) == (1, 6)


async def test_idle_replicas_share_the_requests(world: World) -> None:
    one, two = await world.replica(), await world.replica()
    for _ in range(10):
        await world.ask()
    assert (len(one.received), len(two.received)) == (5, 5)


async def test_a_client_that_leaves_frees_the_engine_at_once(world: World) -> None:
    engine = await world.replica(fake_engine.stream(tokens=1000, between_s=0.01))
    async with world.post(body(stream=True)) as response:
        await response.content.readany()
        assert world.model.in_flight_requests == 1
        response.close()
    await until(lambda: engine.aborted, within_s=1.0)
    await until(lambda: world.model.in_flight_requests == 0, within_s=1.0)
    assert await world.metric("llm_gateway_requests_total", outcome="client_gone") == 1


async def test_a_client_that_leaves_before_the_first_token_frees_the_engine(world: World) -> None:
    engine = await world.replica(fake_engine.silence())
    with pytest.raises(TimeoutError):
        await world.post(timeout=aiohttp.ClientTimeout(total=0.2))
    await until(lambda: engine.aborted, within_s=1.0)
    assert world.model.in_flight_requests == 0


async def test_what_a_request_leaves_in_the_metrics(world: World) -> None:
    await world.replica(fake_engine.stream())
    assert await world.metric("llm_gateway_arrivals_total", model="m") == 0
    await world.ask(stream=True)
    assert await world.metric("llm_gateway_arrivals_total", model="m") == 1
    assert await world.metric("llm_gateway_requests_total", model="m", outcome="ok") == 1
    for histogram in ("queue", "overhead", "time_to_first_token"):
        assert await world.metric(f"llm_gateway_{histogram}_seconds_count", model="m") == 1
    assert 0 < await world.metric("llm_gateway_overhead_seconds_sum", model="m") < 1
    world.has()
    with pytest.raises(KeyError):
        await world.metric("llm_gateway_arrivals_total", model="m")
