"""The API as an OpenAPI document, from the same models that check requests and write answers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REFERENCES: Final = "#/components/schemas/{model}"
_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}


@dataclass(frozen=True)
class Operation:
    """What one route takes and gives.

    body    of the request; None: it has none
    answer  of the response; None: text
    stream  each event of a stream, where the route has one
    """

    method: str
    path: str
    summary: str
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    stream: type[BaseModel] | None = None


def openapi_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    operations = list(operations)
    inputs = [(one.body, "validation") for one in operations if one.body is not None]
    outputs = [
        (model, "serialization")
        for one in operations
        for model in (one.answer, one.stream)
        if model is not None
    ]
    references, definitions = models_json_schema(
        [*inputs, *outputs],  # type: ignore[list-item]
        ref_template=_REFERENCES,
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(_path(one.path), {})[one.method.lower()] = _operation(one, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llm-engine", "version": version("llm-operator")},
        "paths": paths,
        "components": {"schemas": {**definitions.get("$defs", {}), "Error": _ERROR}},
    }


def _operation(one: Operation, references: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": one.summary, "responses": _responses(one, references)}
    names = re.findall(r"{(\w+)", one.path)
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if one.body is not None:
        schema = references[one.body, "validation"]
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(one: Operation, references: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {}}
    if one.answer is not None:
        content = {"application/json": {"schema": references[one.answer, "serialization"]}}
    if one.stream is not None:
        content["text/event-stream"] = {"schema": references[one.stream, "serialization"]}
    refusal = {"application/json": {"schema": {"$ref": _REFERENCES.format(model="Error")}}}
    return {
        "2XX": {"description": "The answer", "content": content},
        "4XX": {"description": "What is wrong with the request", "content": refusal},
        "503": {"description": "Not ready, or shutting down", "content": refusal},
    }


def _path(route: str) -> str:
    return re.sub(r"{(\w+):\w+}", r"{\1}", route)
