"""Texts that must follow a grammar, token by token, beside others that need not."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.tiny_models import byte_tokenizer
from llm_engine.engine import Engine, GenerationRequest, SamplingParameters
from llm_engine.sampling.grammar import Grammars, choice_grammar, json_grammar, regex_grammar
from llm_engine.server.fields.tools import Function
from llm_engine.server.tools.formats import FORMATS, ToolFormat
from tests.engine.tiny_llama import Answers, an_engine, save_tiny_llama

END = 259
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{1,5}$"},
        "size": {"enum": [1, 2, 3]},
        "kind": {"oneOf": [{"type": "null"}, {"type": "boolean"}]},
    },
    "required": ["name", "size", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llama(folder)
    engine = an_engine(folder)
    engine.start()
    yield engine
    engine.stop()


def write(engine: Engine, grammar: str | None, **parameters: Any) -> tuple[str, str]:
    """Return the text that a random model writes, and why it ended."""
    ((text, reason),) = write_all(engine, [(grammar, parameters)])
    return text, reason


def write_all(engine: Engine, asked: list[tuple[str | None, dict[str, Any]]]) -> Any:
    answers = Answers()
    for number, (grammar, parameters) in enumerate(asked):
        given = {"max_tokens": 100, "seed": 1, "grammar": grammar, **parameters}
        request = GenerationRequest(str(number), (1, 2, 3), SamplingParameters(**given))
        engine.submit(request, answers.take)
    answers.wait_for_ends(len(asked))
    return [
        (engine.tokenizer.decode(answers.tokens[name]), answers.last[name].finish_reason)
        for name in map(str, range(len(asked)))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_random_model_writes_json_that_satisfies_its_schema(engine: Engine, seed: int) -> None:
    text, reason = write(engine, json_grammar(SCHEMA), seed=seed)
    value = json.loads(text)
    assert reason == "stop"
    assert set(value) == {"name", "size", "kind"}
    assert re.fullmatch("[a-z]{1,5}", value["name"])
    assert value["size"] in (1, 2, 3)


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        pytest.param(regex_grammar(r"\d{3}-[xyz]+!"), r"\d{3}-[xyz]+!", id="a regular expression"),
        pytest.param(choice_grammar(["yes", 'n"o', "é\n"]), 'yes|n"o|é\n', id="a choice"),
    ],
)
def test_other_forms(engine: Engine, grammar: str, pattern: str) -> None:
    text, reason = write(engine, grammar, temperature=1.5)
    assert reason == "stop"
    assert re.fullmatch(pattern, text)


def test_a_text_that_is_complete_ends_even_where_ends_are_ignored(engine: Engine) -> None:
    assert write(engine, choice_grammar(["abc"]), ignore_eos=True) == ("abc", "stop")


def test_a_text_that_runs_out_of_tokens_is_cut(engine: Engine) -> None:
    assert write(engine, choice_grammar(["abcdef"]), max_tokens=3) == ("abc", "length")


def test_a_grammar_changes_nothing_for_its_neighbours(engine: Engine) -> None:
    alone = write(engine, None, max_tokens=30)
    grammar = json_grammar(SCHEMA)
    together = write_all(
        engine, [(grammar, {}), (None, {"max_tokens": 30}), (grammar, {"seed": 5})]
    )
    assert together[1] == alone
    assert together[0] == write(engine, grammar)


def test_a_grammar_survives_preemption(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    grammar = regex_grammar("[a-f]{60}")
    asked: list[tuple[str | None, dict[str, Any]]] = [(grammar, {"seed": s}) for s in range(3)]
    ample, tight = an_engine(tmp_path), an_engine(tmp_path, blocks=18)
    texts = []
    for engine in (ample, tight):
        engine.start()
        texts.append(write_all(engine, asked))
        preemptions = engine.stats().preemptions
        engine.stop()
    assert preemptions > 0
    assert texts[0] == texts[1]
    assert all(re.fullmatch("[a-f]{60}", text) for text, _ in texts[0])


def test_a_bad_grammar_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(ValueError, match="the grammar is refused"):
        write(engine, regex_grammar("((("))


def test_a_grammar_that_becomes_too_costly_fails_alone() -> None:
    grammars = Grammars(byte_tokenizer().to_str(), 260, frozenset({END}))
    matcher = grammars.matcher("start: X\nX: /.*[ab].{50}/ & /.*[cd].{49}/")
    chance = Random(1)
    for _ in range(500):
        if matcher.allowed() is None:
            break
        matcher.accept(byte_tokenizer().encode(chance.choice("abcdefg")).ids[0])
    assert matcher.failure == "lexer error: too many expressions constructed"


def a_function(name: str, parameters: dict[str, Any], strict: bool = False) -> Function:
    return Function(name=name, parameters=parameters, strict=strict)


CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("spoken", FORMATS, ids=lambda one: one.name)
def test_a_random_model_calls_functions_when_it_must(engine: Engine, spoken: ToolFormat) -> None:
    functions = [a_function("weather", CITY), a_function("other", CITY)]
    grammar = spoken.grammar(functions, required=True, several=False)
    text, reason = write(engine, grammar, max_tokens=110)
    parser = spoken.parser({"weather", "other"})
    (call,) = (*parser.push(text).calls, *parser.finish().calls)
    assert reason == "stop"
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        pytest.param("Just text, {with} braces.", True, id="text without a call"),
        pytest.param(
            'So: <tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
            True,
            id="text with a sound call",
        ),
        pytest.param(
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}',
            False,
            id="a bad call",
        ),
    ],
)
def test_a_strict_function_binds_its_calls_and_no_other_text(text: str, is_allowed: bool) -> None:
    hermes = FORMATS[0]
    grammar = hermes.grammar([a_function("weather", CITY, True)], required=False, several=True)
    matcher = Grammars(byte_tokenizer().to_str(), 260, frozenset({END})).matcher(grammar)
    for token in byte_tokenizer().encode(text).ids:
        matcher.accept(token)
    assert (matcher.failure is None) is is_allowed
