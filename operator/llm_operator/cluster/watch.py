"""List and watch one kind of object for ever, as typed events.

The reader starts from a `Snapshot`, then gets changes; after every gap it gets a new `Snapshot`,
so it can drop what vanished unseen. An API server that is away costs retries, never an exception.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

log = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind of object by its place in the API; `group` is empty for the core group."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None) -> str:
        """Return the path of the collection: of the whole cluster, or of one namespace."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return (
            f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"
        )


@dataclass(frozen=True)
class Snapshot:
    """All objects there are: whatever is not among them is gone."""

    objects: tuple[Json, ...]


@dataclass(frozen=True)
class Changed:
    """An object as it is now, new or modified."""

    object: Json


@dataclass(frozen=True)
class Deleted:
    """An object as it last was."""

    object: Json


Event: TypeAlias = Snapshot | Changed | Deleted


@dataclass(frozen=True)
class WatchTiming:
    """How long to wait for what.

    server_timeout_s  the API server ends a watch after this long, and we begin the next
    silence_s         beyond the server's timeout: then the connection is taken for dead
    first_backoff_s   pause after one failure; doubles up to `longest_backoff_s`, half of it chance
    """

    list_timeout_s: float = 15.0
    server_timeout_s: float = 60.0
    silence_s: float = 10.0
    first_backoff_s: float = 0.2
    longest_backoff_s: float = 10.0


PAGE_OBJECTS: Final = 500
SHORTEST_WATCH_S: Final = 0.5


async def watch(
    client: ApiClient,
    resource: Resource,
    *,
    namespace: str | None = None,
    label_selector: str | None = None,
    timing: WatchTiming = WatchTiming(),
) -> AsyncGenerator[Event, None]:
    """Yield a `Snapshot`, then every change; never ends and never raises for a failing server.

    A clean end of a watch is resumed where it stopped; any failure (410 Gone, 403, a dead
    connection) leads to a new list after a jittered pause, and so to a new `Snapshot`.
    """
    collection = _Collection(client, resource.path(namespace), label_selector, timing)
    failures = 0
    version: str | None = None
    while True:
        try:
            if version is None:
                objects, version = await collection.list()
                yield Snapshot(objects)
            async with aclosing(collection.changes(version)) as changes:
                async for event, seen in changes:
                    version = seen
                    failures = 0
                    if event is not None:
                        yield event
        except (ApiException, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            version = None
            failures += 1
            pause_s = backoff_s(failures, timing, random.random())
            log.warning(
                "watching %s failed, next try in %.1f s: %s",
                resource.plural,
                pause_s,
                _describe(error),
            )
            await asyncio.sleep(pause_s)


def backoff_s(failures: int, timing: WatchTiming, chance: float) -> float:
    """Return the pause after so many failures in a row; `chance` in [0, 1) spreads the callers."""
    doublings = min(failures - 1, 30)  # 2**30 is beyond every cap, and no overflow
    longest_s: float = min(timing.first_backoff_s * 2**doublings, timing.longest_backoff_s)
    return longest_s * (0.5 + 0.5 * chance)


def parse_event(line: bytes) -> tuple[Event | None, str]:
    """Return the event on one line of a watch, None for a bookmark, and its resourceVersion.

    Raises ApiException for an error event, 410 among them, and ValueError for anything else.
    """
    try:
        event = json.loads(line)
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiException(status=obj.get("code"), reason=obj.get("message"))
        version = str(obj["metadata"]["resourceVersion"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a watch event: {line[:200]!r}") from error
    match kind:
        case "ADDED" | "MODIFIED":
            return Changed(obj), version
        case "DELETED":
            return Deleted(obj), version
        case "BOOKMARK":
            return None, version
    raise ValueError(f"unknown type of watch event: {kind!r}")


@dataclass(frozen=True)
class _Collection:
    """The requests that `watch` makes."""

    client: ApiClient
    path: str
    label_selector: str | None
    timing: WatchTiming

    async def list(self) -> tuple[tuple[Json, ...], str]:
        """Return all objects, page by page, and the resourceVersion to watch from."""
        objects: list[Json] = []
        token = ""
        while True:
            query = {"limit": str(PAGE_OBJECTS)} | ({"continue": token} if token else {})
            limits = aiohttp.ClientTimeout(total=self.timing.list_timeout_s)
            response = await self._get(query, limits)
            page = json.loads(await response.read())
            objects += page.get("items") or ()
            token = page["metadata"].get("continue") or ""
            if not token:
                return tuple(objects), str(page["metadata"]["resourceVersion"])

    async def changes(self, version: str) -> AsyncGenerator[tuple[Event | None, str]]:
        """Yield what happens after `version` until the server ends the watch.

        Raises ConnectionError when it ends at once, so that nobody asks again without a pause.
        """
        began_s = asyncio.get_running_loop().time()
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(int(self.timing.server_timeout_s)),
        }
        limits = aiohttp.ClientTimeout(
            total=self.timing.server_timeout_s + self.timing.silence_s,
            sock_connect=self.timing.list_timeout_s,
        )
        response = await self._get(query, limits)
        try:
            async for line in response.content:
                yield parse_event(line)
        finally:
            response.close()
        if asyncio.get_running_loop().time() - began_s < SHORTEST_WATCH_S:
            raise ConnectionError("the server ended the watch at once")

    async def _get(
        self, query: dict[str, str], limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        if self.label_selector is not None:
            query["labelSelector"] = self.label_selector
        request = await self.client.param_serialize(
            "GET",
            self.path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        reply = await self.client.call_api(*request, _request_timeout=limits)
        response: aiohttp.ClientResponse = reply.response
        if response.status != 200:
            await reply.read()
            raise ApiException(http_resp=reply)
        return response


def _describe(error: Exception) -> str:
    """Return one line: a status has a reason, a timeout has no text of its own."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}"
    return f"{type(error).__name__}: {error}".removesuffix(": ")
