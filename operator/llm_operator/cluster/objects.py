"""Requests to the Kubernetes API with raw dictionaries: every read and every write of the operator.

It keeps the promises that hold for all of them: a deadline for each request, no more than so many
a second, silence for as long as a 429 asks, and no write without leave (the lease).
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import OpenApiException

from llm_operator.api.names import FIELD_MANAGER
from llm_operator.cluster.kinds import Kind, kind_of
from llm_operator.cluster.pace import Pace

Json: TypeAlias = dict[str, Any]

REQUEST_TIMEOUT_S: Final = 15.0
PAGE_OBJECTS: Final = 500
_LONGEST_SILENCE_S: Final = 60.0


class RequestFailed(Exception):
    """The API server refused a request, or none could be made (`status` 0).

    retry_after_s  what a 429 or 503 asked for
    """

    def __init__(self, status: int, what: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{what}: {status} {message}" if status else f"{what}: {message}")
        self.status = status
        self.what = what
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def conflict(self) -> bool:
        """The object is no more what it was when it was read."""
        return self.status == 409

    @property
    def forbidden(self) -> bool:
        """Our role lacks this verb on this resource."""
        return self.status == 403


class WriteWithoutLease(Exception):
    """A write was held back because this process does not lead, or no longer does."""


class Objects:
    """The API server as a place of raw objects.

    may_write    asked right before each write: a process that was paused may have lost its lease
    requests_per_s  ceiling over all requests, so that no recovery becomes a storm
    """

    def __init__(
        self,
        client: ApiClient,
        may_write: Callable[[], bool] = lambda: True,
        requests_per_s: float = 50.0,
    ) -> None:
        self._client = client
        self._may_write = may_write
        self._pace = Pace(requests_per_s)
        self._silent_until_s = 0.0
        self.last_contact_s = time.monotonic()
        """When the API server last answered anything, on the monotonic clock."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        """Return the object; None where there is none."""
        try:
            return await self._request("GET", kind.path(namespace, name))
        except RequestFailed as failure:
            if failure.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str | None = None
    ) -> tuple[list[Json], str]:
        """Return all objects, apiVersion and kind filled in, and the list's resourceVersion."""
        objects: list[Json] = []
        query = {"limit": str(PAGE_OBJECTS)}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = await self._request("GET", kind.path(namespace), query)
            identity = {"apiVersion": kind.api_version, "kind": kind.name}
            objects += [identity | item for item in page.get("items") or ()]
            token = page["metadata"].get("continue")
            if not token:
                return objects, str(page["metadata"]["resourceVersion"])
            query["continue"] = token

    async def apply(
        self,
        manifest: Json,
        *,
        kind: Kind | None = None,
        subresource: str = "",
        manager: str = FIELD_MANAGER,
        force: bool = True,
    ) -> Json:
        """Apply a manifest server-side and return the object as it is now.

        With `metadata.resourceVersion` in it, an object that has changed meanwhile is a conflict.

        kind  of the object, where the manifest is of a subresource with a kind of its own
        """
        metadata = manifest["metadata"]
        path = (kind or kind_of(manifest)).path(metadata.get("namespace"), metadata["name"])
        path += f"/{subresource}" if subresource else ""
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._write("PATCH", path, query, manifest, "application/apply-patch+yaml")

    async def create(self, manifest: Json) -> Json:
        """Create an object; a conflict says that it is there already."""
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata.get("namespace"))
        return await self._write("POST", path, {"fieldManager": FIELD_MANAGER}, manifest)

    async def replace(self, manifest: Json) -> Json:
        """Replace an object; its resourceVersion in the manifest guards against a race."""
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata.get("namespace"), metadata["name"])
        return await self._write("PUT", path, {"fieldManager": FIELD_MANAGER}, manifest)

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, uid: str, resource_version: str
    ) -> None:
        """Delete the object if it still is the one that was seen; gone already is success."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        try:
            await self._write("DELETE", kind.path(namespace, name), {}, body)
        except RequestFailed as failure:
            if failure.status != 404:
                raise

    async def _write(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Json,
        content_type: str = "application/json",
    ) -> Json:
        if not self._may_write():
            raise WriteWithoutLease(f"{method} {path}")
        return await self._request(method, path, query, body, content_type)

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        what = f"{method} {path}"
        await self._pace.wait_turn()
        await self._keep_silence()
        if body is not None and not self._may_write():
            raise WriteWithoutLease(what)  # the lease ran out while this write waited its turn
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            limits = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
            reply = await self._client.call_api(*request, _request_timeout=limits)
            text = await reply.read()
        except (aiohttp.ClientError, OSError, TimeoutError, OpenApiException) as error:
            raise RequestFailed(0, what, f"{type(error).__name__} {error}".strip()) from error
        self.last_contact_s = time.monotonic()
        if not 200 <= reply.status <= 299:
            raise self._refused(reply.status, what, text, reply.headers.get("Retry-After"))
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise RequestFailed(0, what, "the answer is no JSON object") from error

    async def _keep_silence(self) -> None:
        """Wait for as long as the API server asked everyone to."""
        wait_s = self._silent_until_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _refused(
        self, status: int, what: str, text: bytes, retry_after: str | None
    ) -> RequestFailed:
        retry_after_s = 0.0
        if status in (429, 503) and retry_after and retry_after.isdigit():
            retry_after_s = min(float(retry_after), _LONGEST_SILENCE_S)
            self._silent_until_s = time.monotonic() + retry_after_s
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, TypeError, KeyError):
            message = text[:200].decode(errors="replace")
        return RequestFailed(status, what, message, retry_after_s)
