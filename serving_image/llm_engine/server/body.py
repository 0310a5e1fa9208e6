"""From the bytes of a request to its typed fields, or to an error that names the field."""

import json
from typing import Final, TypeVar

from fastapi import Request
from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect

from llm_engine.server.errors import ApiError
from llm_engine.server.fields.model import RequestModel

MAX_BODY_BYTES: Final = 10 * 1024 * 1024

_WANTED: Final = {
    "prompt": "a string, a list of strings, a list of tokens or a list of lists of tokens",
    "stop": "a string or a list of strings",
    "content": "a string or a list of text parts; images and audio are not understood",
    "tool_choice": "none, auto, required or {type: function, function: {name}}",
}
"""Fields of more than one form; pydantic would speak of the first form only."""

Fields = TypeVar("Fields", bound=RequestModel)


async def read_fields(request: Request, fields: type[Fields]) -> Fields:
    """Read and check a body.

    Parsed straight from the bytes: no tree of Python objects between, and depth and numbers are
    bounded by the parser. Raises `ApiError` 400, 413 or 415.
    """
    body = await _read(request)
    try:
        checked = fields.model_validate_json(body)
    except ValidationError as invalid:
        raise _refusal(invalid.errors(include_url=False, include_context=True)[0]) from None
    # Only now: the parser above has made sure that this one finds no depth and no numbers to fear.
    json.loads(body, object_pairs_hook=_refuse_duplicates)
    return checked


def _refuse_duplicates(pairs: list[tuple[str, JsonValue]]) -> None:
    """Refuse a name given twice: which one counts is a matter of taste among parsers."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        message = f"the field {name[:80]} is given more than once"
        raise ApiError(400, message, param=name[:80], code="duplicate_parameter")


async def _read(request: Request) -> bytes:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise ApiError(415, f"set Content-Type to application/json, not {kind[:80]!r}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ApiError(415, f"send the body without Content-Encoding, not {encoding[:80]!r}")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
    except ClientDisconnect:  # nobody reads this answer; it is no fault of ours either
        raise ApiError(400, "the client left in the middle of the body") from None
    return bytes(body)


def _too_large() -> ApiError:
    message = f"the body is larger than {MAX_BODY_BYTES} bytes"
    return ApiError(413, message, code="request_too_large")


def _refusal(error: ErrorDetails) -> ApiError:
    kind = error["type"]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {error['msg']}", code="invalid_json")
    if kind in ("unsupported", "refused"):
        name = str(error["ctx"]["name"])
        code = "unsupported_parameter" if kind == "unsupported" else "invalid_value"
        return ApiError(400, error["msg"], param=name, code=code)
    path = [str(part) for part in error["loc"]]
    for depth, part in enumerate(path):
        if part in _WANTED and kind != "missing":
            name = ".".join(path[: depth + 1])
            return ApiError(400, f"{name} takes {_WANTED[part]}", param=name, code="invalid_value")
    name = ".".join(path)
    if kind == "extra_forbidden":
        message = f"the field {name} is not known here, and nothing is ignored"
        return ApiError(400, message, param=name, code="unknown_parameter")
    if kind == "missing":
        message = f"{name} is missing"
        return ApiError(400, message, param=name, code="missing_required_parameter")
    message = f"{name}: {error['msg']}" if name else f"the body: {error['msg']}"
    return ApiError(400, message, param=name or None, code="invalid_value")
