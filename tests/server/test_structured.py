"""Asking for a form: which grammar reaches the engine, and which is refused by whose name."""

import json
from typing import Any

import pytest

from llm_engine.sampling.grammar import choice_grammar, json_grammar, regex_grammar
from llm_engine.server.errors import ApiError
from llm_engine.server.structured.checker import GrammarChecker
from tests.server.served import Served

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
HANGING = "start: X\nX: /.*[ab].{50}/ & /.*[cd].{49}/ & /.*[ef].{48}/ & ~/.*q.{20}/"


def response_format(schema: Any) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    }


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        pytest.param({"response_format": {"type": "text"}}, None, id="text is any text"),
        pytest.param(
            {"response_format": {"type": "json_object"}},
            json_grammar({"type": "object"}),
            id="any JSON object",
        ),
        pytest.param(response_format(SCHEMA), json_grammar(SCHEMA), id="OpenAI's schema"),
        pytest.param(
            {"structured_outputs": {"json": SCHEMA}}, json_grammar(SCHEMA), id="vLLM's schema"
        ),
        pytest.param(
            {"guided_json": json.dumps(SCHEMA)}, json_grammar(SCHEMA), id="a schema as text"
        ),
        pytest.param(
            {"structured_outputs": {"regex": "a+"}}, regex_grammar("a+"), id="a regular expression"
        ),
        pytest.param(
            {"guided_choice": ["yes", "no"]}, choice_grammar(["yes", "no"]), id="a choice"
        ),
    ],
)
async def test_a_form_reaches_the_engine(
    served: Served, fields: dict[str, Any], grammar: str | None
) -> None:
    for ask in (served.complete, served.chat):
        response = await ask(max_tokens=3, **fields)
        assert response.status_code == 200, response.text
    assert [request.sampling.grammar for request in served.engine.seen] == [grammar] * 2


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"response_format": {"type": "yaml"}}, "response_format.type", id="unknown"),
        pytest.param(
            {"response_format": {"type": "json_schema"}}, "response_format", id="no schema"
        ),
        pytest.param(
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "guided_regex",
            id="two forms",
        ),
        pytest.param({"structured_outputs": {}}, "structured_outputs", id="no form"),
        pytest.param(
            {"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs", id="two"
        ),
        pytest.param({"guided_json": "{"}, "guided_json", id="a schema that is no JSON"),
        pytest.param({"guided_grammar": "start: x"}, "guided_grammar", id="a grammar of one's own"),
        pytest.param({"guided_choice": []}, "guided_choice", id="nothing to choose from"),
        pytest.param({"guided_regex": "((("}, "guided_regex", id="an unclosed group"),
        pytest.param({"guided_regex": "(?=a)b"}, "guided_regex", id="a look ahead"),
        pytest.param({"guided_regex": "(x+x+)+y" * 2000}, "guided_regex", id="a huge expression"),
        pytest.param(response_format({"type": "objet"}), "response_format", id="an unknown type"),
        pytest.param(response_format({"$ref": "#"}), "response_format", id="a schema of nothing"),
        pytest.param(
            response_format({"$ref": "http://127.0.0.1/x"}), "response_format", id="a remote schema"
        ),
        pytest.param(response_format({"not": {}}), "response_format", id="an unknown keyword"),
        pytest.param(
            response_format({"enum": ["x" * 100] * 60_000}), "response_format", id="5 MB of schema"
        ),
        pytest.param(
            response_format({"allOf": [{"properties": {f"a{i}": {}}} for i in range(900)]}),
            "response_format",
            id="a schema that explodes",
        ),
        pytest.param(
            response_format({"type": "object"}) | {"min_tokens": 3}, "min_tokens", id="min_tokens"
        ),
    ],
)
async def test_a_form_that_will_not_do_is_named(
    served: Served, fields: dict[str, Any], param: str
) -> None:
    response = await served.chat(**fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert served.engine.seen == []


TREE = {"type": "object", "properties": {"child": {"$ref": "#/$defs/tree"}}}


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"$defs": {"tree": TREE}, "$ref": "#/$defs/tree"}, id="recursion with an end"),
        pytest.param(deep(60), id="deep nesting"),
        pytest.param({"type": "string", "pattern": "^(a+)+$"}, id="catastrophic for backtracking"),
    ],
)
async def test_what_only_looks_dangerous_is_served(served: Served, schema: Any) -> None:
    assert (await served.chat(**response_format(schema))).status_code == 200


async def test_a_grammar_that_hangs_is_refused_and_others_are_not_harmed() -> None:
    checker = GrammarChecker(budget_s=1)
    with pytest.raises(ApiError, match="response_format: compiling it takes more than 1 s"):
        await checker.check(HANGING, "response_format")
    await checker.check(regex_grammar("a+"), "guided_regex")
