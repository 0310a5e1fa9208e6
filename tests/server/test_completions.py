import asyncio
from typing import Any

import pytest

from llm_engine.server.service import FEWEST_WAITING
from tests.server.fake_engine import FakeEngine
from tests.server.served import Served, events, serving, until

NOTHING_CACHED = {"prompt_tokens_details": {"cached_tokens": 0}}
ANSWER = "Paris é 🙂 is the capital."


def content(body: str) -> str:
    chunks = [event for event in events(body) if event != "[DONE]" and event["choices"]]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


async def test_a_chat_is_answered_with_usage(served: Served) -> None:
    answer = (await served.chat()).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "fake"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": ANSWER, "refusal": None}
    assert choice["finish_reason"] == "stop"
    prompt, output = len("<user>hi\n"), len(ANSWER.encode()) + 1  # the end is a token too
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    assert answer["usage"] == usage | NOTHING_CACHED


async def test_a_stream_says_what_the_whole_answer_says(served: Served) -> None:
    response = await served.chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert content(response.text) == ANSWER
    chunks = events(response.text)
    assert chunks[-1] == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert not any("role" in delta for delta in deltas[1:])
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks[:-1]}) == 1


async def test_no_event_holds_half_a_character(served: Served) -> None:
    chunks = events((await served.chat(stream=True)).text)
    assert "\N{REPLACEMENT CHARACTER}" not in str(chunks)


@pytest.mark.parametrize(
    ("options", "with_usage", "last_has_no_choice"),
    [
        pytest.param(None, 0, False, id="a stream carries no usage by itself"),
        pytest.param({"include_usage": True}, 1, True, id="include_usage adds one closing event"),
        pytest.param({"continuous_usage_stats": True}, 6, False, id="continuous usage in each"),
    ],
)
async def test_usage_in_streams(
    served: Served, options: dict[str, bool] | None, with_usage: int, last_has_no_choice: bool
) -> None:
    body = {"stream": True, "max_tokens": 6} | ({"stream_options": options} if options else {})
    chunks = events((await served.complete(**body)).text)[:-1]
    usages = [chunk["usage"] for chunk in chunks if chunk["usage"]]
    # Steps that came together share an event, so there may be fewer.
    assert (len(usages) > 0) == (with_usage > 0)
    assert len(usages) <= with_usage
    assert (chunks[-1]["choices"] == []) is last_has_no_choice
    if usages:
        tokens = {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}
        assert usages[-1] == tokens | NOTHING_CACHED


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        pytest.param({"max_tokens": 5}, "Paris", "length", id="max_tokens ends the text"),
        pytest.param({}, "Paris é 🙂 is", "length", id="16 tokens unless said otherwise"),
        pytest.param({"stop": " is", "max_tokens": 99}, "Paris é 🙂", "stop", id="a stop string"),
        pytest.param(
            {"stop": ["nope", "é 🙂 i"], "max_tokens": 99}, "Paris ", "stop", id="one of several"
        ),
        pytest.param({"stop_token_ids": [ord("r")]}, "Pa", "stop", id="a stop token"),
        pytest.param({"max_tokens": 99}, ANSWER, "stop", id="the model's own end"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_how_a_text_ends(
    served: Served, fields: dict[str, Any], text: str, reason: str, stream: bool
) -> None:
    response = await served.complete(**fields, stream=stream)
    chunks = events(response.text)[:-1] if stream else [response.json()]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == text
    assert choices[-1]["finish_reason"] == reason


async def test_a_stop_string_ends_the_work_too(served: Served) -> None:
    await served.complete(stop="r", max_tokens=99)
    assert served.engine.aborted == [served.engine.seen[0].request_id]
    await until(lambda: served.service.streams.open_requests == 0)


async def test_several_prompts_are_answered_in_order(served: Served) -> None:
    answer = (await served.complete(prompt=["a", "bc"], max_tokens=3)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    tokens = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    assert answer["usage"] == tokens | NOTHING_CACHED
    assert {request.prompt_tokens for request in served.engine.seen} == {(97,), (98, 99)}


async def test_prompts_may_be_tokens(served: Served) -> None:
    await served.complete(prompt=[1, 2, 3])
    await served.complete(prompt=[[4], [5, 6]])
    assert {r.prompt_tokens for r in served.engine.seen} == {(1, 2, 3), (4,), (5, 6)}


async def test_sampling_reaches_the_engine(served: Served) -> None:
    fields: dict[str, Any] = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "seed": 3,
        "ignore_eos": True,
        "min_tokens": 2,
        "stop_token_ids": [9],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "logit_bias": {"5": -100, "7": 2.5},
    }
    await served.complete(**fields)
    sampling = vars(served.engine.seen[0].sampling)
    biases = ((5, -100.0), (7, 2.5))
    unset = {"top_logprobs": None, "prompt_logprobs": None, "grammar": None}
    assert sampling == fields | unset | {"stop_token_ids": frozenset({9}), "logit_bias": biases}


async def test_priority_and_salt_reach_the_engine(served: Served) -> None:
    await served.complete(priority=-3, cache_salt="tenant a")
    await served.complete()
    first, second = served.engine.seen
    assert (first.priority, first.cache_salt) == (-3, "tenant a")
    assert (second.priority, second.cache_salt) == (0, "")


async def test_what_is_not_given_is_the_engines_default(served: Served) -> None:
    await served.chat(temperature=None, top_k=-1, seed=None)
    sampling = served.engine.seen[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (1.0, None, None)
    # Without a limit a chat may fill the context.
    assert sampling.max_tokens == served.engine.max_context_tokens - len("<user>hi\n")


async def test_max_completion_tokens_is_the_newer_name(served: Served) -> None:
    answer = (await served.chat(max_completion_tokens=5)).json()
    assert answer["choices"][0]["message"]["content"] == "Paris"


async def test_messages_may_come_in_parts(served: Served) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    await served.chat(
        messages=[{"role": "system", "content": "s"}, {"role": "user", "content": parts}]
    )
    assert bytes(served.engine.seen[0].prompt_tokens) == b"<system>s\n<user>ab\n"


async def test_neutral_values_of_unsupported_fields_pass(served: Served) -> None:
    fields: dict[str, Any] = {
        "n": 1,
        "logprobs": None,
        "tools": [],
        "response_format": {"type": "text"},
        "user": "u",
    }
    assert (await served.chat(**fields)).status_code == 200


async def test_a_failing_engine_is_a_500_or_the_last_event_of_a_stream(served: Served) -> None:
    served.engine.fails = True
    whole = await served.complete()
    assert (whole.status_code, whole.json()["error"]["type"]) == (500, "server_error")
    chunks = events((await served.complete(stream=True)).text)
    assert chunks[-1]["error"]["type"] == "server_error"
    assert "[DONE]" not in chunks


async def test_too_many_requests_are_told_to_come_back() -> None:
    engine = FakeEngine(max_concurrency=1)
    async with serving(engine) as served:
        engine.hold.clear()
        room = 1 + FEWEST_WAITING
        waiting = [asyncio.create_task(served.complete()) for _ in range(room)]
        await until(lambda: served.service.streams.open_requests == room)
        refused = await served.complete()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["type"] == "rate_limit_error"
        engine.hold.set()
        assert {task.status_code for task in await asyncio.gather(*waiting)} == {200}


async def test_ending_all_requests_tells_their_readers(served: Served) -> None:
    served.engine.hold.clear()
    whole = asyncio.create_task(served.complete())
    stream = asyncio.create_task(served.complete(stream=True))
    await until(lambda: served.service.streams.open_requests == 2)
    served.service.streams.abort_all()
    assert (await whole).status_code == 503
    assert events((await stream).text)[-1]["error"]["code"] == "aborted"
    served.engine.hold.set()


async def test_prompts_of_too_many_tokens_at_once_get_429_with_the_numbers(served: Served) -> None:
    served.engine.hold.clear()
    room = 5 * 4 * 256  # five times the KV cache
    filling = [asyncio.create_task(served.complete(prompt=[1] * 240)) for _ in range(room // 240)]
    await until(lambda: served.service.streams.open_requests == len(filling))
    refused = await served.complete(prompt=[1] * 240)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    message = refused.json()["error"]["message"]
    assert f"{240 * len(filling)} prompt tokens" in message
    assert f"limit {room}" in message
    served.engine.hold.set()
    assert {answer.status_code for answer in await asyncio.gather(*filling)} == {200}


async def test_what_load_tests_send_is_served(served: Served) -> None:
    """The body of `vllm bench serve`."""
    body: dict[str, Any] = {
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 5,
        "logprobs": None,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    *chunks, last, done = events((await served.complete(**body)).text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Paris"
    assert (last["usage"]["completion_tokens"], done) == (5, "[DONE]")
