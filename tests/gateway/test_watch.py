"""The watch against a small API server that misbehaves on demand."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from llm_operator.cluster.connection import connect
from llm_operator.cluster.watch import (
    Changed,
    Deleted,
    Event,
    Resource,
    Snapshot,
    WatchTiming,
    backoff_s,
    parse_event,
    watch,
)
from tests.gateway.world import until

THINGS = Resource("example.com", "v1", "things")
TIMING = WatchTiming(
    list_timeout_s=0.5,
    server_timeout_s=1.0,
    silence_s=0.5,
    first_backoff_s=0.02,
    longest_backoff_s=0.1,
)


def thing(name: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def line(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


@dataclass
class ApiServer:
    """Lists `pages` and then plays one script per watch; a script ends the watch or hangs."""

    pages: list[list[dict[str, Any]]] = field(default_factory=lambda: [[]])
    version: int = 10
    failing: int | None = None
    scripts: list[list[bytes | float]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        self.paths.add(request.path)
        if self.failing is not None:
            return web.json_response({"message": "no"}, status=self.failing)
        if "watch" in request.query:
            return await self.watch(request)
        page = int(request.query.get("continue", "0"))
        more = str(page + 1) if page + 1 < len(self.pages) else ""
        metadata = {"resourceVersion": str(self.version), "continue": more}
        return web.json_response({"metadata": metadata, "items": self.pages[page]})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for step in self.scripts.pop(0) if self.scripts else [60.0]:
            if isinstance(step, bytes):
                await response.write(step)
            else:
                await asyncio.sleep(step)
        return response

    @property
    def watched_from(self) -> list[str]:
        return [query["resourceVersion"] for query in self.queries if "watch" in query]


@asynccontextmanager
async def watching(
    server: ApiServer, folder: Path, **options: Any
) -> AsyncIterator[AsyncGenerator[Event, None]]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        kubeconfig = folder / "config"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                    "clusters": [
                        {"name": "k", "cluster": {"server": f"http://127.0.0.1:{site.port}"}}
                    ],
                    "users": [{"name": "u", "user": {}}],
                }
            )
        )
        async with connect(kubeconfig) as client, asyncio.timeout(20):
            events = watch(client, THINGS, timing=TIMING, **options)
            async with aclosing(events):
                yield events
    finally:
        await runner.cleanup()


async def test_a_list_of_several_pages_and_then_changes(tmp_path: Path) -> None:
    server = ApiServer(pages=[[thing("a"), thing("b")], [thing("c")]])
    server.scripts = [
        [
            line("ADDED", thing("d", 11)),
            line("MODIFIED", thing("a", 12)),
            line("DELETED", thing("b", 13)),
            60.0,
        ]
    ]
    async with watching(server, tmp_path) as events:
        assert await anext(events) == Snapshot((thing("a"), thing("b"), thing("c")))
        assert await anext(events) == Changed(thing("d", 11))
        assert await anext(events) == Changed(thing("a", 12))
        assert await anext(events) == Deleted(thing("b", 13))
    assert server.watched_from == ["10"]
    assert server.paths == {"/apis/example.com/v1/things"}


async def test_a_watch_that_ends_is_resumed_where_it_was(tmp_path: Path) -> None:
    server = ApiServer()
    server.scripts = [
        [line("ADDED", thing("a", 11)), line("BOOKMARK", thing("", 20)), 0.6],
        [line("ADDED", thing("b", 21)), 60.0],
    ]
    async with watching(server, tmp_path) as events:
        kinds = [await anext(events) for _ in range(3)]
    assert kinds == [Snapshot(()), Changed(thing("a", 11)), Changed(thing("b", 21))]
    assert server.watched_from == ["10", "20"], "the bookmark counts"


GONE = {"kind": "Status", "code": 410, "message": "too old resource version"}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([line("ERROR", GONE)], id="410 Gone"),
        pytest.param([b"not json\n"], id="nonsense"),
        pytest.param([line("ADDED", {"no": "metadata"})], id="an event that is none"),
        pytest.param([], id="an end at once"),
        pytest.param([60.0], id="silence beyond the server's own timeout"),
    ],
)
async def test_after_any_gap_everything_is_listed_again(
    tmp_path: Path, script: list[bytes | float]
) -> None:
    server = ApiServer(scripts=[script])
    async with watching(server, tmp_path) as events:
        assert await anext(events) == Snapshot(())
        server.pages = [[thing("z")]]
        assert await anext(events) == Snapshot((thing("z"),))


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_server_that_refuses_is_asked_again_and_again(tmp_path: Path, status: int) -> None:
    server = ApiServer(failing=status)
    async with watching(server, tmp_path) as events:
        first = asyncio.ensure_future(anext(events))
        await until(lambda: len(server.queries) >= 4)
        assert not first.done()
        server.failing = None
        assert await first == Snapshot(())


async def test_a_forbidden_watch_is_not_asked_for_in_a_busy_loop(tmp_path: Path) -> None:
    server = ApiServer(scripts=[[line("ERROR", {"code": 403, "message": "no"})]] * 1000)
    async with watching(server, tmp_path) as events:
        snapshots = asyncio.ensure_future(drain(events))
        await asyncio.sleep(0.5)
        snapshots.cancel()
        await asyncio.wait([snapshots])
    assert 2 <= len(server.watched_from) <= 20


async def drain(events: AsyncIterator[Event]) -> None:
    async for _ in events:
        pass


async def test_a_namespace_and_a_selector_narrow_the_watch(tmp_path: Path) -> None:
    server = ApiServer()
    async with watching(server, tmp_path, namespace="n", label_selector="a=b") as events:
        await anext(events)
    assert server.paths == {"/apis/example.com/v1/namespaces/n/things"}
    assert server.queries[0]["labelSelector"] == "a=b"


def test_paths() -> None:
    assert Resource("", "v1", "pods").path() == "/api/v1/pods"
    assert Resource("", "v1", "pods").path("n") == "/api/v1/namespaces/n/pods"


def test_the_pause_doubles_up_to_its_limit_and_is_never_nothing() -> None:
    timing = WatchTiming(first_backoff_s=0.2, longest_backoff_s=10.0)
    longest = [backoff_s(n, timing, chance=1.0) for n in (1, 2, 3, 10, 10_000)]
    assert longest == [0.2, 0.4, 0.8, 10.0, 10.0]
    assert backoff_s(1, timing, chance=0.0) == 0.1


@pytest.mark.parametrize("text", [b"[]", b'"x"', b"{}", b'{"type": "ODD", "object": {}}', b"\xff"])
def test_a_line_that_is_no_event_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_event(text)
