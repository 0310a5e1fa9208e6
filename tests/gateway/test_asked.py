import json
from typing import Any

import pytest

from llm_operator.gateway.asked import EXPECTED_OUTPUT_TOKENS, MOST_OUTPUT_TOKENS, parse
from llm_operator.gateway.refusal import Refusal

GOOD = b'{"model": "m"}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"model": "m"', id="truncated"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"m"', id="a string"),
        pytest.param(b'{"model": "m"} {}', id="two documents"),
        pytest.param(b'{"model": "m", "temperature": NaN}', id="NaN"),
        pytest.param(b'{"model": "m", "temperature": -Infinity}', id="infinity"),
        pytest.param(b'{"model": "m", "model": "n"}', id="a key twice"),
        pytest.param(b'{"model": "m", "o": {"a": 1, "a": 2}}', id="a key twice further down"),
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="a byte order mark"),
        pytest.param(b'{"model": "\xff"}', id="not UTF-8"),
        pytest.param(GOOD.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"model": "m", "prompt": "\\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"model": "m\x00"}', id="a raw NUL"),
        pytest.param(b"[" * 100_000, id="nested 100,000 deep"),
        pytest.param(
            b'{"model": "m", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="and closed"
        ),
        pytest.param(b'{"model": "m", "seed": ' + b"9" * 1_000_000 + b"}", id="a million digits"),
    ],
)
def test_what_is_not_one_clean_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse(body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({}, "model", id="no model"),
        pytest.param({"model": ""}, "model", id="an empty model"),
        pytest.param({"model": 7}, "model", id="a number for a model"),
        pytest.param({"model": None}, "model", id="null for a model"),
        pytest.param({"model": "m", "stream": "yes"}, "stream", id="a word for stream"),
        pytest.param({"model": "m", "stream": 1}, "stream", id="a number for stream"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse(json.dumps(fields).encode())
    assert (refused.value.status, refused.value.param) == (400, param)


def test_an_error_never_repeats_the_prompt() -> None:
    with pytest.raises(Refusal) as refused:
        parse(b'{"model": "m", "prompt": "my secret", }')
    assert b"secret" not in refused.value.body


@pytest.mark.parametrize(
    ("fields", "output_tokens"),
    [
        pytest.param({}, EXPECTED_OUTPUT_TOKENS, id="no limit: an average"),
        pytest.param({"max_tokens": 7}, 7, id="the client's limit"),
        pytest.param({"max_tokens": 7, "max_completion_tokens": 9}, 9, id="the newer name wins"),
        pytest.param({"max_tokens": 10**9}, MOST_OUTPUT_TOKENS, id="a limit beyond reason"),
        pytest.param({"max_tokens": 7, "n": 3}, 21, id="n choices cost n times"),
        pytest.param({"max_tokens": -5}, EXPECTED_OUTPUT_TOKENS, id="nonsense is the replica's"),
        pytest.param({"max_tokens": True}, EXPECTED_OUTPUT_TOKENS, id="true is no number"),
        pytest.param({"max_tokens": "9"}, EXPECTED_OUTPUT_TOKENS, id="nor is text"),
    ],
)
def test_the_tokens_to_expect(fields: dict[str, Any], output_tokens: int) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    assert parse(body).tokens == len(body) // 4 + output_tokens


def test_a_longer_prompt_weighs_more() -> None:
    short, long = (parse(json.dumps({"model": "m", "prompt": "a" * n}).encode()) for n in (4, 4000))
    assert 900 <= long.tokens - short.tokens <= 1100


def test_characters_outside_the_basic_plane_may_be_escaped() -> None:
    assert parse(b'{"model": "m", "prompt": "\\ud83d\\ude00"}').model == "m"
