import json
from typing import Any

import pytest

from tests.server.served import Served

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


def case(path: str, fields: dict[str, Any], param: str | None, code: str | None, *, id: str) -> Any:  # noqa: A002 (as pytest names it)
    return pytest.param(path, fields, param, code, id=id)


def a_call_of_old(arguments: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    call = {"id": "1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


BAD_FIELDS = [
    case(TEXT, {"prompt": None}, "prompt", "invalid_value", id="prompt is null"),
    case(TEXT, {"prompt": ""}, "prompt", None, id="prompt has no token"),
    case(TEXT, {"prompt": []}, "prompt", None, id="no prompt at all"),
    case(TEXT, {"prompt": 3}, "prompt", "invalid_value", id="prompt is a number"),
    case(TEXT, {"prompt": [1, 1.5]}, "prompt", "invalid_value", id="a token is a fraction"),
    case(TEXT, {"prompt": [-1]}, "prompt", "invalid_value", id="a token is negative"),
    case(TEXT, {"prompt": [258]}, "prompt", "invalid_value", id="a token is out of the vocabulary"),
    case(CHAT, {"messages": []}, "messages", "invalid_value", id="no messages"),
    case(CHAT, {"messages": None}, "messages", "invalid_value", id="messages are null"),
    case(
        CHAT,
        {"messages": [{"role": "boss", "content": "x"}]},
        "messages.0.role",
        "invalid_value",
        id="an unknown role",
    ),
    case(
        CHAT,
        {"messages": [{"role": "user", "content": 3}]},
        "messages.0.content",
        "invalid_value",
        id="content is a number",
    ),
    case(
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content",
        "invalid_value",
        id="an image for a text model",
    ),
    case(
        CHAT,
        {"messages": [{"role": "user", "content": "unruly"}]},
        "messages",
        "template_rejected",
        id="the chat template refuses",
    ),
    case(TEXT, {"temperature": -1}, "temperature", "invalid_value", id="temperature below 0"),
    case(TEXT, {"temperature": 1e9}, "temperature", "invalid_value", id="temperature above 2"),
    case(TEXT, {"temperature": "hot"}, "temperature", "invalid_value", id="temperature is text"),
    case(TEXT, {"top_p": 0}, "top_p", "invalid_value", id="top_p is 0"),
    case(TEXT, {"top_p": 2}, "top_p", "invalid_value", id="top_p is above 1"),
    case(TEXT, {"top_k": -5}, "top_k", "invalid_value", id="top_k is negative"),
    case(TEXT, {"seed": 2**64}, "seed", "invalid_value", id="a seed beyond 64 bits"),
    case(TEXT, {"max_tokens": 0}, "max_tokens", "invalid_value", id="max_tokens is 0"),
    case(TEXT, {"max_tokens": -1}, "max_tokens", "invalid_value", id="max_tokens is negative"),
    case(
        TEXT, {"max_tokens": 10**9}, "prompt", "context_length_exceeded", id="max_tokens too large"
    ),
    case(
        TEXT,
        {"max_tokens": 2, "min_tokens": 3},
        "min_tokens",
        "invalid_value",
        id="more min_tokens than max_tokens",
    ),
    case(TEXT, {"stop": [""]}, "stop", "invalid_value", id="an empty stop string"),
    case(TEXT, {"stop": "x" * 2000}, "stop", "invalid_value", id="a very long stop string"),
    case(TEXT, {"stop": ["x"] * 1000}, "stop", "invalid_value", id="a thousand stop strings"),
    case(TEXT, {"stop": [1]}, "stop", "invalid_value", id="a stop string is a number"),
    case(TEXT, {"stop_token_ids": [999]}, "stop_token_ids", "invalid_value", id="no such token"),
    case(TEXT, {"stream": "yes"}, "stream", "invalid_value", id="stream is text"),
    case(
        TEXT,
        {"stream_options": {"include_usage": True}},
        "stream_options",
        "invalid_value",
        id="stream options without a stream",
    ),
    case(TEXT, {"prompt": ["a"] * 2049}, "prompt", "invalid_value", id="two thousand prompts"),
    case(TEXT, {"prompt": ["a"] * 99, "n": 99}, "prompt", "invalid_value", id="too many texts"),
    case(TEXT, {"prompt": [1] * 10**6}, "prompt", "context_length_exceeded", id="a million tokens"),
    case(TEXT, {"prompt": ["a", [1]]}, "prompt", "invalid_value", id="prompts of two kinds"),
    case(TEXT, {"prompt": [[]]}, "prompt", None, id="a prompt of no token"),
    case(TEXT, {"n": 0}, "n", "invalid_value", id="n is 0"),
    case(TEXT, {"n": 10**6}, "n", "invalid_value", id="n of a million"),
    case(TEXT, {"n": True}, "n", "invalid_value", id="n is a truth"),
    case(TEXT, {"n": 3, "best_of": 2}, "best_of", "invalid_value", id="best_of below n"),
    case(TEXT, {"best_of": 2}, "best_of", "invalid_value", id="best_of above n"),
    case(CHAT, {"echo": True}, "echo", "invalid_value", id="a chat has no echo"),
    case(TEXT, {"logprobs": 10**4}, "logprobs", "invalid_value", id="ten thousand logprobs"),
    case(TEXT, {"logprobs": -1}, "logprobs", "invalid_value", id="logprobs below 0"),
    case(TEXT, {"logprobs": True}, "logprobs", "invalid_value", id="a completion counts logprobs"),
    case(CHAT, {"logprobs": 3}, "logprobs", "invalid_value", id="a chat does not"),
    case(CHAT, {"top_logprobs": 2}, "top_logprobs", "invalid_value", id="top without logprobs"),
    case(
        CHAT,
        {"logprobs": True, "top_logprobs": 21},
        "top_logprobs",
        "invalid_value",
        id="more top_logprobs than 20",
    ),
    case(TEXT, {"logit_bias": {"-5": 1}}, "logit_bias", "invalid_value", id="bias of no token"),
    case(TEXT, {"logit_bias": {"x": 1}}, "logit_bias", "invalid_value", id="bias of a word"),
    case(TEXT, {"logit_bias": {"258": 1}}, "logit_bias", "invalid_value", id="bias out of range"),
    case(TEXT, {"logit_bias": {"5": 101}}, "logit_bias", "invalid_value", id="too strong a bias"),
    case(TEXT, {"logit_bias": [1]}, "logit_bias", "invalid_value", id="biases are a list"),
    case(
        TEXT,
        {"logit_bias": {str(token): 1 for token in range(10**5)}},
        "logit_bias",
        "invalid_value",
        id="a hundred thousand biases",
    ),
    case(TEXT, {"suffix": "x"}, "suffix", "unsupported_parameter", id="suffix"),
    case(
        CHAT,
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        "tools",
        "unsupported_parameter",
        id="tools for a model of no known format",
    ),
    case(CHAT, {"tools": [{"type": "web"}]}, "tools.0.type", "invalid_value", id="no function"),
    case(
        CHAT,
        {"tools": [{"type": "function", "function": {"name": "f g"}}]},
        "tools.0.function.name",
        "invalid_value",
        id="a function's name with a space",
    ),
    case(
        CHAT,
        {"tools": [{"type": "function", "function": {"name": "f"}}] * 2},
        "tools",
        "invalid_value",
        id="two functions of one name",
    ),
    case(CHAT, {"tool_choice": "required"}, "tool_choice", "invalid_value", id="no tool to call"),
    case(
        CHAT,
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        "tool_choice",
        "invalid_value",
        id="an unknown tool is chosen",
    ),
    case(CHAT, {"tool_choice": "perhaps"}, "tool_choice", "invalid_value", id="no such choice"),
    case(
        CHAT,
        {"messages": [{"role": "tool", "content": "3"}]},
        "messages",
        "invalid_value",
        id="a result of no call",
    ),
    case(
        CHAT,
        {"messages": [a_call_of_old("[1]")]},
        "messages",
        "invalid_value",
        id="a call's arguments are a list",
    ),
    case(
        CHAT,
        {"messages": [a_call_of_old("{")]},
        "messages",
        "invalid_value",
        id="a call's arguments are no JSON",
    ),
    case(
        CHAT,
        {"messages": [a_call_of_old("{}") | {"role": "user"}]},
        "messages",
        "invalid_value",
        id="a user calls a function",
    ),
    case(TEXT, {"temprature": 1}, "temprature", "unknown_parameter", id="a field misspelt"),
]


@pytest.mark.parametrize(("path", "fields", "param", "code"), BAD_FIELDS)
async def test_a_bad_field_is_named(
    served: Served, path: str, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    given = {"messages": MESSAGES} if path == CHAT else {"prompt": "hi"}
    response = await served.client.post(path, json={"model": "fake", **given, **fields})
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert served.engine.seen == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"model": "fake", "prompt"', id="cut short"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"model":"fake","prompt":"hi","n":1,"n":2}', id="a field given twice"),
        pytest.param(
            b'{"model":"fake","prompt":"hi","logit_bias":{"1":1,"1":2}}', id="a bias given twice"
        ),
        pytest.param(b'{"model":"fake","prompt":"hi"} {}', id="something after the body"),
        pytest.param(b'{"model":"fake","prompt":"hi",}', id="a comma too many"),
        pytest.param(b"{'model':'fake','prompt':'hi'}", id="single quotes"),
        pytest.param(b'{"model":"fake","prompt":"hi","top_p":Infinity}', id="infinity"),
        pytest.param(b'{"model":"fake","prompt":"h\x00i"}', id="a bare NUL"),
        pytest.param(b'{"model":"fake","prompt":"\\udc00\\ud800"}', id="surrogates upside down"),
        pytest.param(b'{"model":"fake","\\ud800":1,"prompt":"x"}', id="half a pair in a name"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"model":"fake","prompt":"hi","top_p":NaN}', id="NaN"),
        pytest.param(b'{"model":"fake","prompt":"hi","top_p":1e400}', id="a number beyond floats"),
        pytest.param(b'\xef\xbb\xbf{"model":"fake","prompt":"hi"}', id="a byte order mark"),
        pytest.param(b'{"model":"fake","prompt":"\xff"}', id="no UTF-8"),
        pytest.param(b'{"model":"fake","prompt":"\\ud800"}', id="half a surrogate pair"),
        pytest.param('{"model":"fake","prompt":"hi"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(
            b'{"model":"fake","prompt":' + b"[" * 10**5 + b"]" * 10**5 + b"}", id="deeply nested"
        ),
        pytest.param(
            b'{"model":"fake","prompt":"hi","seed":' + b"9" * 10**6 + b"}", id="huge number"
        ),
    ],
)
async def test_a_malformed_body_is_a_400(served: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await served.client.post(TEXT, content=body, headers=headers)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert served.engine.seen == []


async def test_a_missing_field_is_named(served: Served) -> None:
    error = (await served.client.post(CHAT, json={"messages": MESSAGES})).json()["error"]
    assert (error["param"], error["code"]) == ("model", "missing_required_parameter")


async def test_another_model_is_not_found(served: Served) -> None:
    response = await served.complete(model="other")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert (await served.client.get("/v1/models/other")).status_code == 404


async def test_a_prompt_that_is_too_long_is_told_both_numbers(served: Served) -> None:
    error = (await served.complete(prompt="x" * 300)).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "256" in error["message"]
    assert "300" in error["message"]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_that_is_too_large_is_refused(served: Served, declared: bool) -> None:
    async def pieces() -> Any:
        for _ in range(11):
            yield b" " * 1024 * 1024

    content = b" " * 11 * 1024 * 1024 if declared else pieces()
    headers = {"content-type": "application/json"}
    response = await served.client.post(TEXT, content=content, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"content-type": "text/plain"}, id="not JSON"),
        pytest.param(
            {"content-type": "application/json", "content-encoding": "gzip"}, id="compressed"
        ),
    ],
)
async def test_another_content_type_is_a_415(served: Served, headers: dict[str, str]) -> None:
    body = json.dumps({"model": "fake", "prompt": "hi"})
    response = await served.client.post(TEXT, content=body, headers=headers)
    assert response.status_code == 415
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/nothing", 404, id="no such path"),
        pytest.param("GET", "/docs", 404, id="no interactive docs"),
        pytest.param("GET", "/openapi.json", 404, id="no schema either"),
        pytest.param("GET", TEXT, 405, id="completions want POST"),
        pytest.param("DELETE", "/v1/models", 405, id="models cannot be deleted"),
    ],
)
async def test_wrong_paths_and_methods(served: Served, method: str, path: str, status: int) -> None:
    response = await served.client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_nothing_new_is_taken_while_draining(served: Served) -> None:
    served.lifecycle.draining = True
    response = await served.complete()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["connection"] == "close"
    assert response.json()["error"]["code"] == "draining"
    assert (await served.client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    ("messages", "status", "code"),
    [
        pytest.param([{"role": "system", "content": "x"}], 200, None, id="only a system message"),
        pytest.param([{"role": "assistant", "content": None}], 200, None, id="content is null"),
        pytest.param(
            [{"role": "user", "content": ""}] * 10**5,
            400,
            "context_length_exceeded",
            id="a hundred thousand messages",
        ),
    ],
)
async def test_strange_conversations(
    served: Served, messages: list[Any], status: int, code: str | None
) -> None:
    response = await served.chat(messages=messages)
    assert response.status_code == status
    assert response.json().get("error", {}).get("code") == code


async def test_a_length_beyond_the_limit_is_refused_whatever_comes(served: Served) -> None:
    headers = {"content-type": "application/json", "content-length": str(2**40)}
    response = await served.client.post(TEXT, content=b"{}", headers=headers)
    assert response.status_code == 413
