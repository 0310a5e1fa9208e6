"""Several texts of one request, side by side in one answer or one stream."""

import asyncio
from typing import Any

import pytest

from tests.server.served import Served, events, until

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def texts(body: str) -> dict[int, str]:
    """Return the text of each choice of a stream of completions."""
    grown: dict[int, str] = {}
    for event in events(body)[:-1]:
        for choice in event["choices"]:
            grown[choice["index"]] = grown.get(choice["index"], "") + choice["text"]
    return grown


async def test_n_texts_are_numbered_and_the_prompt_counts_once(served: Served) -> None:
    answer = (await served.complete(n=3, max_tokens=5)).json()
    choices = [(choice["index"], choice["text"]) for choice in answer["choices"]]
    assert choices == [(0, "Paris"), (1, "Paris"), (2, "Paris")]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 15)


async def test_n_texts_of_each_prompt_follow_each_other(served: Served) -> None:
    answer = (await served.complete(prompt=["a", "b"], n=2, best_of=2, max_tokens=1)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [bytes(r.prompt_tokens) for r in served.engine.seen] == [b"a", b"a", b"b", b"b"]


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [
        pytest.param(7, [7, 8, 9], id="a seed gives each text its own"),
        pytest.param(None, [None, None, None], id="no seed stays no seed"),
    ],
)
async def test_seeds_of_n_texts(served: Served, seed: int | None, seeds: list[Any]) -> None:
    await served.complete(n=3, seed=seed)
    assert [request.sampling.seed for request in served.engine.seen] == seeds


async def test_a_stream_carries_several_texts_by_index(served: Served) -> None:
    body = {"prompt": ["a", "b"], "n": 2, "max_tokens": 8, "stream": True}
    response = await served.complete(**body, stream_options={"include_usage": True})
    assert texts(response.text) == dict.fromkeys(range(4), "Paris é")
    *_, last, done = events(response.text)
    assert done == "[DONE]"
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (2, 32)


async def test_each_message_of_a_stream_says_once_who_speaks(served: Served) -> None:
    response = await served.chat(n=2, stream=True)
    roles = [
        choice["index"]
        for event in events(response.text)[:-1]
        for choice in event["choices"]
        if choice["delta"].get("role") == "assistant"
    ]
    assert sorted(roles) == [0, 1]


async def test_a_failure_of_one_text_ends_a_stream_of_several(served: Served) -> None:
    served.engine.fails = True
    chunks = events((await served.complete(n=3, stream=True)).text)
    assert chunks[-1]["error"]["type"] == "server_error"
    await until(lambda: served.service.streams.open_requests == 0)


async def test_a_client_that_leaves_ends_all_its_texts(served: Served) -> None:
    served.engine.hold.clear()
    asking = asyncio.create_task(served.complete(n=3, stream=True))
    await until(lambda: served.service.streams.open_requests == 3)
    asking.cancel()
    await until(lambda: served.service.streams.open_requests == 0)
    assert len(served.engine.aborted) == 3
