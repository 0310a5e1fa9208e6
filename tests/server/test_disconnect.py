import asyncio
import json

import pytest
from starlette.types import Message

from tests.server.served import Served, until


class Client:
    """Speaks ASGI, and leaves when told to."""

    def __init__(self, served: Served, stream: bool) -> None:
        body = {"model": "fake", "prompt": "hi", "stream": stream, "ignore_eos": True}
        content = json.dumps(body | {"max_tokens": 200}).encode()
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self._coming.put_nowait({"type": "http.request", "body": content, "more_body": False})
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
        self.got.append(message)
        if message.get("body"):
            self.first_text.set()

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
    assert b"[DONE]" not in b"".join(message.get("body", b"") for message in client.got)


async def test_a_client_that_stays_is_not_aborted(served: Served) -> None:
    client = Client(served, stream=True)
    await client.answering
    client.leave()
    assert served.engine.aborted == []
