"""The published document, and whatever it allows sent to a real server: never a 5xx."""

import json
import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from llm_engine.server.app import document
from tests.server.running import ROOT, simulated

PUBLISHED: Final = ROOT / "docs/openapi.json"
EXAMPLES: Final = int(os.environ.get("OPENAPI_EXAMPLES", "25"))


def test_the_published_document_is_current() -> None:
    """Where this fails, `make generate` writes it anew."""
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(document()))


def test_every_field_of_a_request_is_in_the_document() -> None:
    schema = document()["components"]["schemas"]["ChatCompletionRequest"]
    assert {"tools", "response_format", "logit_bias", "seed", "n"} <= schema["properties"].keys()
    assert schema["required"] == ["model", "messages"]


def narrowed() -> Any:
    """Return the document for a model of this name: any other name is a 404 and nothing else."""
    narrow = document()
    for schema in narrow["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"const": "fake"}
    return schemathesis.openapi.from_dict(narrow).exclude(path="/drain")  # it would end the server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with simulated(step_s=0, max_context_tokens=64, blocks=64) as port:
        yield f"http://127.0.0.1:{port}"


schema = narrowed()


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
def test_no_request_is_a_server_error(case: schemathesis.Case[Any], url: str) -> None:
    response = case.call(base_url=url, timeout=60)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
