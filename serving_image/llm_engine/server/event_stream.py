"""Server-sent events as OpenAI's clients read them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_engine.server.disconnect import ClientGone, unless_gone
from llm_engine.server.errors import ApiError


class EventStream(Response):
    """A response that sends each item as it comes, and `[DONE]` at the end.

    An error after the first byte becomes a last event, and no `[DONE]` follows it. When the client
    goes away the items are closed at once. A client that reads slowly holds back `send`, and the
    next item then carries all the text that has come meanwhile.
    """

    media_type = "text/event-stream"

    def __init__(self, items: AsyncGenerator[BaseModel, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._items = items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole stream (ASGI)."""
        del scope
        with suppress(ClientGone):
            await unless_gone(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        last = b"data: [DONE]\n\n"
        async with aclosing(self._items) as items:
            try:
                async for item in items:
                    event = b"data: " + item.model_dump_json().encode() + b"\n\n"
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except ApiError as error:
                last = b"data: " + error.body() + b"\n\n"
        await send({"type": "http.response.body", "body": last, "more_body": False})
