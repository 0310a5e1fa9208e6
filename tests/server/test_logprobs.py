"""Log-probabilities in both of OpenAI's forms, whole and streamed."""

from typing import Any

import pytest

from tests.server.served import Served, events

PARIS = "Paris é"


async def test_a_completion_carries_the_older_form(served: Served) -> None:
    answer = (await served.complete(max_tokens=2, logprobs=2)).json()
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["P", "a"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"P": -0.5, "Q": -1.5}, {"a": -0.5, "b": -1.5}],
        "text_offset": [0, 1],
    }


async def test_logprobs_0_reports_the_chosen_tokens_alone(served: Served) -> None:
    answer = (await served.complete(max_tokens=1, logprobs=0)).json()
    assert answer["choices"][0]["logprobs"]["top_logprobs"] == [{"P": -0.5}]


async def test_a_chat_carries_the_newer_form(served: Served) -> None:
    answer = (await served.chat(max_tokens=1, logprobs=True, top_logprobs=2)).json()
    top = [
        {"token": "P", "logprob": -0.5, "bytes": [80]},
        {"token": "Q", "logprob": -1.5, "bytes": [81]},
    ]
    content = [top[0] | {"top_logprobs": top}]
    assert answer["choices"][0]["logprobs"] == {"content": content, "refusal": None}


@pytest.mark.parametrize("fields", [{}, {"logprobs": False}, {"logprobs": None}])
async def test_nobody_gets_what_nobody_asked_for(served: Served, fields: dict[str, Any]) -> None:
    assert (await served.chat(**fields)).json()["choices"][0]["logprobs"] is None
    assert served.engine.seen[0].sampling.top_logprobs is None


async def test_a_part_of_a_character_is_told_by_its_bytes(served: Served) -> None:
    answer = (await served.chat(max_tokens=8, logprobs=True)).json()
    content = answer["choices"][0]["logprobs"]["content"]
    assert answer["choices"][0]["message"]["content"] == PARIS
    assert bytes(byte for token in content for byte in token["bytes"]) == PARIS.encode()
    assert content[-1]["token"] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("stop", [None, "é", "is "])
async def test_a_stream_carries_the_same_as_a_whole_answer(
    served: Served, stop: str | None
) -> None:
    fields = {"max_tokens": 12, "logprobs": True, "top_logprobs": 1, "stop": stop}
    whole = (await served.chat(**fields)).json()["choices"][0]["logprobs"]["content"]
    chunks = events((await served.chat(**fields, stream=True)).text)[:-1]
    streamed = [t for c in chunks for t in c["choices"][0]["logprobs"]["content"]]
    assert streamed == whole
    assert all(chunk["choices"][0]["logprobs"] is not None for chunk in chunks)


async def test_tokens_of_a_stop_string_are_not_reported(served: Served) -> None:
    answer = (await served.complete(max_tokens=12, logprobs=1, stop="is ")).json()
    (choice,) = answer["choices"]
    assert (choice["text"], choice["logprobs"]["tokens"]) == ("Par", ["P", "a", "r"])


async def test_an_echo_begins_with_the_prompt(served: Served) -> None:
    answer = (await served.complete(prompt="hé", echo=True, n=2, max_tokens=5, stop="h")).json()
    assert [choice["text"] for choice in answer["choices"]] == ["héParis"] * 2
    assert served.engine.seen[0].sampling.prompt_logprobs is None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_echo_with_logprobs_reports_the_prompt_too(served: Served, stream: bool) -> None:
    fields = {"prompt": "abc", "echo": True, "logprobs": 1, "max_tokens": 1, "stream": stream}
    response = await served.complete(**fields)
    chunks = events(response.text)[:-1] if stream else [response.json()]
    (choice,) = (choice for chunk in chunks for choice in chunk["choices"])
    assert choice["text"] == "abcP"
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "c", "P"],
        "token_logprobs": [None, -0.5, -0.5, -0.5],
        "top_logprobs": [None, {"b": -0.5}, {"c": -0.5}, {"P": -0.5}],
        "text_offset": [0, 1, 2, 3],
    }
    assert served.engine.seen[0].sampling.prompt_logprobs == 1
    assert not served.engine.seen[0].reads_prefixes
