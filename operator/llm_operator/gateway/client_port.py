"""The client's side: routes, bodies, request ids, and an error object for everything else."""

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from aiohttp import web

from llm_operator.gateway.asked import parse
from llm_operator.gateway.attempt import REQUEST_ID, SERVER, Call
from llm_operator.gateway.fleet import Fleet
from llm_operator.gateway.metrics import Metrics, Outcome
from llm_operator.gateway.model import Model
from llm_operator.gateway.proxy import Proxy
from llm_operator.gateway.refusal import Refusal, invalid, model_not_found
from llm_operator.gateway.settings import Settings

log = logging.getLogger(__name__)

JSON: Final = "application/json"
COMPLETIONS: Final = ("/v1/completions", "/v1/chat/completions")
MODELS: Final = "/v1/models"
_REQUEST_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")

Route: TypeAlias = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]


@dataclass
class ClientPort:
    """Answers clients.

    running  requests being answered now
    """

    settings: Settings
    fleet: Fleet
    proxy: Proxy
    metrics: Metrics
    running: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        self.running += 1
        try:
            response = await self._answer_any(request)
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()
        if self.proxy.draining and not response.prepared:
            response.force_close()
        return response

    async def quiet(self) -> None:
        """Wait until no request is being answered."""
        while self.running:
            self._idle.clear()
            await self._idle.wait()

    async def _answer_any(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = _request_id(request)
        try:
            return await self._route(request)(request, request_id)
        except Refusal as refusal:
            return _answer(refusal.status, refusal.body, request_id, refusal.headers)
        except ConnectionError:
            raise  # the client is gone: nobody to answer
        except Exception:
            log.exception("request %s", request_id)
            error = Refusal(500, "internal_error", "The gateway failed; its log has the cause.")
            return _answer(error.status, error.body, request_id)

    def _route(self, request: web.BaseRequest) -> Route:
        # The raw path: what is percent-encoded or needs normalizing is no path of ours.
        path = request.rel_url.raw_path
        if path in COMPLETIONS:
            allowed, route = "POST", self._complete
        elif path == MODELS:
            allowed, route = "GET", self._list_models
        else:
            message = (
                f"There is no such path; the gateway serves {', '.join((*COMPLETIONS, MODELS))}."
            )
            raise Refusal(404, "not_found", message)
        if request.method != allowed:
            message = f"This path takes {allowed} only."
            raise Refusal(405, "method_not_allowed", message, allow=allowed)
        return route

    async def _list_models(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        del request
        models = [
            {"id": name, "object": "model", "created": model.created_s, "owned_by": "llm-operator"}
            for name, model in sorted(self.fleet.models.items())
        ]
        return _answer(200, json.dumps({"object": "list", "data": models}).encode(), request_id)

    async def _complete(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        arrived_s = self.fleet.now_s()
        body = await self._body(request)
        read_s = self.fleet.now_s()
        asked = parse(body)
        model = self._model(asked.model)
        metrics = self.metrics.of(model.name)
        metrics.arrivals.inc()
        call = Call(request, request_id, asked, body, arrived_s, metrics)
        call.overhead_s = self.fleet.now_s() - read_s
        try:
            return await self.proxy.serve(call, model)
        except Refusal as refusal:
            failed = refusal.code in ("replica_failed", "first_token_timeout")
            call.outcome = Outcome.FAILED if failed else Outcome.REJECTED
            raise
        except (asyncio.CancelledError, ConnectionError):
            call.outcome = Outcome.CLIENT_GONE
            raise
        finally:
            metrics.ended(call.outcome)
            metrics.overhead_s.observe(call.overhead_s)

    def _model(self, name: str) -> Model:
        if name in self.fleet.models:
            return self.fleet.models[name]
        if not self.fleet.known:
            message = "The gateway has just started and does not know the models yet."
            raise Refusal(503, "starting", message, retry_after_s=1)
        raise model_not_found(name)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Read the body; Refusal where it is too large, too slow or no plain JSON."""
        if request.content_type != JSON:
            raise Refusal(415, "unsupported_media_type", f"Content-Type must be {JSON}.")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "unsupported_encoding", "The body must not be compressed.")
        too_large = Refusal(
            413, "body_too_large", f"The body exceeds {self.settings.max_body_bytes} bytes."
        )
        if (request.content_length or 0) > self.settings.max_body_bytes:
            raise too_large
        try:
            async with asyncio.timeout(self.settings.read_body_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise too_large from error
        except web.RequestPayloadError as error:
            raise invalid("The body breaks off or is wrongly framed.") from error
        except TimeoutError as error:
            raise Refusal(408, "body_timeout", "The body did not arrive in time.") from error


def _request_id(request: web.BaseRequest) -> str:
    """Return the client's id where it is a harmless one, else a new one."""
    given = request.headers.get(REQUEST_ID, "")
    return given if _REQUEST_ID_PATTERN.fullmatch(given) else uuid.uuid4().hex


def _answer(
    status: int, body: bytes, request_id: str, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status,
        body=body,
        content_type=JSON,
        headers={**(headers or {}), REQUEST_ID: request_id, "Server": SERVER},
    )
