import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message

from tests.server.served import Served, events, until


class Client:
    """Speaks ASGI, and leaves when told to; takes `pause_s` to read each piece of the body."""

    def __init__(
        self, served: Served, stream: bool, pause_s: float = 0.0, cut_body: bool = False
    ) -> None:
        self._pause_s = pause_s
        body = {"model": "fake", "prompt": "hi", "stream": stream, "ignore_eos": True}
        content = json.dumps(body | {"max_tokens": 200}).encode()
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self._coming.put_nowait({"type": "http.request", "body": content, "more_body": cut_body})
        self.got: list[Message] = []
        self.first_text = asyncio.Event()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
        }
        self.answering = asyncio.ensure_future(
            served.service.app(scope, self._coming.get, self._take)
        )

    async def _take(self, message: Message) -> None:
        await asyncio.sleep(self._pause_s if message.get("body") else 0)
        self.got.append(message)
        if message.get("body"):
            self.first_text.set()

    @property
    def body(self) -> str:
        return b"".join(message.get("body", b"") for message in self.got).decode()

    def leave(self) -> None:
        self._coming.put_nowait({"type": "http.disconnect"})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_while_waiting_frees_the_engine(
    served: Served, stream: bool
) -> None:
    served.engine.hold.clear()
    client = Client(served, stream)
    await until(lambda: bool(served.engine.seen))
    client.leave()
    await client.answering
    assert served.engine.aborted == [served.engine.seen[0].request_id]
    await until(lambda: served.service.streams.open_requests == 0)
    assert served.engine.stats().kv_usage == 0
    assert 'finished_reason="abort",model_name="fake"} 1.0' in await served.metrics()


async def test_a_client_that_leaves_in_the_middle_of_a_stream_frees_the_engine(
    served: Served,
) -> None:
    client = Client(served, stream=True)
    await client.first_text.wait()
    served.engine.hold.clear()
    client.leave()
    await client.answering
    assert len(served.engine.aborted) == 1
    assert served.engine.stats().kv_usage == 0
    assert "[DONE]" not in client.body


async def test_a_client_that_stays_is_not_aborted(served: Served) -> None:
    client = Client(served, stream=True)
    await client.answering
    client.leave()
    assert served.engine.aborted == []


async def test_a_slow_reader_gets_the_same_text_in_fewer_events(served: Served) -> None:
    quick, slow = Client(served, stream=True), Client(served, stream=True, pause_s=0.02)
    await asyncio.gather(quick.answering, slow.answering)
    quick_events, slow_events = events(quick.body)[:-1], events(slow.body)[:-1]

    def text(chunks: list[Any]) -> str:
        return "".join(chunk["choices"][0]["text"] for chunk in chunks)

    assert text(slow_events) == text(quick_events)
    assert len(slow_events) < len(quick_events)


async def test_a_client_that_leaves_in_the_middle_of_its_body_asks_nothing(served: Served) -> None:
    client = Client(served, stream=False, cut_body=True)
    client.leave()
    await client.answering
    assert served.engine.seen == []


async def test_a_reader_that_leaves_too_much_unread_loses_its_request(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_engine.server.streams.MOST_UNREAD_TOKENS", 50)
    stuck = Client(served, stream=True, pause_s=3600)
    await until(lambda: bool(served.engine.aborted))
    await until(lambda: served.service.streams.open_requests == 0)
    assert served.engine.stats().kv_usage == 0
    stuck.leave()
    await stuck.answering
