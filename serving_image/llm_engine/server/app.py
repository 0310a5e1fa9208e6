"""The FastAPI application: routes, and every error as an OpenAI-style object."""

import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from llm_engine.server import completions
from llm_engine.server.access_log import AccessLog
from llm_engine.server.answers import (
    ChatChunk,
    ChatCompletion,
    Completion,
    Draining,
    Model,
    ModelList,
    Text,
    Tokens,
    Version,
)
from llm_engine.server.body import read_fields
from llm_engine.server.errors import ApiError
from llm_engine.server.fields.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from llm_engine.server.openapi import Operation, openapi_document
from llm_engine.server.prompts import chat_tokens, check_token_ids, text_tokens
from llm_engine.server.serving import Serving

logger = logging.getLogger(__name__)

Endpoint = Callable[[Serving, Request], Awaitable[Response]]


async def _models(serving: Serving, request: Request) -> Response:
    del request
    return _json(ModelList(data=[_model(serving)]))


async def _one_model(serving: Serving, request: Request) -> Response:
    serving.check_model(request.path_params["name"])
    return _json(_model(serving))


async def _tokenize(serving: Serving, request: Request) -> Response:
    fields = await read_fields(request, TokenizeRequest)
    serving.check_model(fields.model)
    if fields.messages is not None:
        tokens = await chat_tokens(serving, fields.messages)
    else:
        tokens = await text_tokens(serving, fields.prompt or "", fields.add_special_tokens)
    limit = serving.backend.max_context_tokens
    return _json(Tokens(count=len(tokens), max_model_len=limit, tokens=tokens))


async def _detokenize(serving: Serving, request: Request) -> Response:
    fields = await read_fields(request, DetokenizeRequest)
    serving.check_model(fields.model)
    check_token_ids(serving, fields.tokens, "tokens")
    return _json(Text(prompt=serving.backend.tokenizer.decode(fields.tokens)))


async def _metrics(serving: Serving, request: Request) -> Response:
    del request
    return Response(serving.metrics.exposition(), media_type="text/plain; version=0.0.4")


async def _version(serving: Serving, request: Request) -> Response:
    del serving, request
    return _json(Version(version=version("llm-operator")))


async def _drain(serving: Serving, request: Request) -> Response:
    del request
    serving.begin_drain()
    return Response(Draining().model_dump_json(), 202, media_type="application/json")


ROUTES: Final[tuple[tuple[Operation, Endpoint], ...]] = (
    (Operation("GET", "/v1/models", "The model that is served", answer=ModelList), _models),
    (Operation("GET", "/v1/models/{name:path}", "One model", answer=Model), _one_model),
    (
        Operation(
            "POST",
            "/v1/completions",
            "Continue a prompt",
            body=CompletionRequest,
            answer=Completion,
            stream=Completion,
        ),
        completions.complete,
    ),
    (
        Operation(
            "POST",
            "/v1/chat/completions",
            "Continue a conversation",
            body=ChatCompletionRequest,
            answer=ChatCompletion,
            stream=ChatChunk,
        ),
        completions.chat,
    ),
    (
        Operation("POST", "/tokenize", "Text to tokens", body=TokenizeRequest, answer=Tokens),
        _tokenize,
    ),
    (
        Operation("POST", "/detokenize", "Tokens to text", body=DetokenizeRequest, answer=Text),
        _detokenize,
    ),
    (Operation("GET", "/metrics", "Metrics, as Prometheus reads them"), _metrics),
    (Operation("GET", "/version", "The version of the engine", answer=Version), _version),
    (
        Operation("POST", "/drain", "Finish what runs, then end the process", answer=Draining),
        _drain,
    ),
)
"""Everything but the probes, which `front` answers."""


def document() -> dict[str, Any]:
    """Return the OpenAPI document of all routes; published with the documentation, not served."""
    return openapi_document(operation for operation, _ in ROUTES)


def create_app(serving: Serving) -> ASGIApp:
    """Return the API of a loaded model."""
    # No documents here: they are for developers, and this port is not.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    for operation, endpoint in ROUTES:
        app.add_api_route(operation.path, _bound(serving, endpoint), methods=[operation.method])
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _our_fault)
    return AccessLog(app)


def _bound(serving: Serving, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await endpoint(serving, request)

    return answer


def _model(serving: Serving) -> Model:
    limit = serving.backend.max_context_tokens
    return Model(id=serving.served_name, created=serving.created, max_model_len=limit)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


async def _api_error(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, ApiError)
    return Response(error.body(), error.status, error.headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    """Dress the framework's own 404 and 405."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    messages = {
        404: f"there is nothing at {path}; the API is under /v1",
        405: f"{request.method} is not possible at {path}",
    }
    message = messages.get(error.status_code, str(error.detail))
    dressed = ApiError(error.status_code, message)
    dressed.headers.update(error.headers or {})
    return await _api_error(request, dressed)


async def _our_fault(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer; the log line with the trace is uvicorn's.
    del error
    message = "the server failed on this request; its log says why"
    return await _api_error(request, ApiError(500, message, code="internal_error"))
