"""Requests keep their promises: deadlines, silence when asked, no write without leave."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from llm_operator.cluster.kinds import POD, SERVICE
from llm_operator.cluster.objects import Objects, RequestFailed, WriteWithoutLease
from llm_operator.cluster.pace import Pace

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SERVICE_A = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "ns"}}


@asynccontextmanager
async def an_api(answer: Handler, **options: Any) -> AsyncIterator[Objects]:
    """Serve every path with one handler, and yield the way to it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
            yield Objects(client, **options)
    finally:
        await runner.cleanup()


def refusing(status: int, message: str, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": message}, status=status, headers=headers)

    return answer


async def test_what_is_not_there_is_none() -> None:
    async with an_api(refusing(404, "not found")) as objects:
        assert await objects.get(POD, "ns", "a") is None


@pytest.mark.parametrize(
    ("status", "conflict", "forbidden"),
    [(409, True, False), (403, False, True), (500, False, False), (422, False, False)],
)
async def test_a_refusal_says_what_and_why(status: int, conflict: bool, forbidden: bool) -> None:
    async with an_api(refusing(status, "no, because")) as objects:
        with pytest.raises(RequestFailed, match="no, because") as refused:
            await objects.apply(SERVICE_A)
    assert (refused.value.conflict, refused.value.forbidden) == (conflict, forbidden)
    assert "PATCH /api/v1/namespaces/ns/services/a" in str(refused.value)


async def test_an_answer_that_is_no_json_is_a_failure() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>")

    async with an_api(answer) as objects:
        with pytest.raises(RequestFailed, match="no JSON"):
            await objects.get(POD, "ns", "a")


async def test_a_connection_that_breaks_is_a_failure() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with an_api(answer) as objects:
        with pytest.raises(RequestFailed) as failed:
            await objects.get(POD, "ns", "a")
    assert failed.value.status == 0


async def test_pages_become_one_list_of_whole_objects() -> None:
    async def answer(request: web.Request) -> web.Response:
        token = request.query.get("continue")
        names = ["c"] if token else ["a", "b"]
        metadata = {"resourceVersion": "7"} | ({} if token else {"continue": "more"})
        items = [{"metadata": {"name": name}} for name in names]
        assert request.query["labelSelector"] == "x=y"
        return web.json_response({"metadata": metadata, "items": items})

    async with an_api(answer) as objects:
        found, version = await objects.list(POD, label_selector="x=y")
    assert [obj["metadata"]["name"] for obj in found] == ["a", "b", "c"]
    assert {(obj["apiVersion"], obj["kind"]) for obj in found} == {("v1", "Pod")}
    assert version == "7"


async def test_after_a_429_nobody_asks_before_the_time_is_over() -> None:
    asked_s: list[float] = []

    async def answer(_: web.Request) -> web.Response:
        asked_s.append(time.monotonic())
        if len(asked_s) == 1:
            return web.json_response({"message": "busy"}, status=429, headers={"Retry-After": "1"})
        return web.json_response({"metadata": {}})

    async with an_api(answer) as objects:
        with pytest.raises(RequestFailed) as busy:
            await objects.get(POD, "ns", "a")
        assert busy.value.retry_after_s == 1
        await objects.get(SERVICE, "ns", "b")
    assert asked_s[1] - asked_s[0] >= 0.99


async def test_without_the_lease_nothing_is_written() -> None:
    methods: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        methods.append(request.method)
        return web.json_response({"metadata": {}})

    async with an_api(answer, may_write=lambda: False) as objects:
        await objects.get(POD, "ns", "a")
        for write in (
            objects.apply(SERVICE_A),
            objects.create(SERVICE_A),
            objects.replace(SERVICE_A),
            objects.delete(SERVICE, "ns", "a", "uid", "1"),
        ):
            with pytest.raises(WriteWithoutLease):
                await write
    assert methods == ["GET"]


async def test_a_lease_that_runs_out_while_a_write_waits_stops_it() -> None:
    leave = iter([True, False])

    async def answer(_: web.Request) -> web.Response:
        raise AssertionError("it must not be sent")

    async with an_api(answer, may_write=lambda: next(leave)) as objects:
        with pytest.raises(WriteWithoutLease):
            await objects.apply(SERVICE_A)


async def test_a_deletion_is_of_what_was_seen_and_gone_is_success() -> None:
    bodies: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"message": "gone"}, status=404)

    async with an_api(answer) as objects:
        await objects.delete(SERVICE, "ns", "a", "the-uid", "7")
    assert bodies[0]["preconditions"] == {"uid": "the-uid", "resourceVersion": "7"}


def test_the_pace_lets_a_second_through_at_once_and_then_its_rate() -> None:
    now_s = [0.0]
    pace = Pace(10.0, lambda: now_s[0])
    now_s[0] = 60.0
    delays_s = [pace.delay_s() for _ in range(15)]
    assert delays_s[:10] == pytest.approx([0.0] * 10, abs=1e-9)
    assert delays_s[10:] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
