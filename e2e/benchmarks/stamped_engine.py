"""A tiny engine that writes the time into every token: the other end of the gateway benchmark.

Not an engine at all, only its wire: it answers any POST with a stream of tokens at a fixed pace,
each bearing the monotonic time (ns) at which it was written, the first also when the request came.
"""

import argparse
import asyncio
import time
from typing import cast

import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
READY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
# As long as a real chunk of /v1/chat/completions.
EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"stamped",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}],'
    b'"came_ns":%d,"sent_ns":%d}\n\n'
)


class StampedEngine(asyncio.Protocol):
    """One connection; requests follow one another on it."""

    def __init__(self, tokens: int, between_s: float) -> None:
        self.tokens = tokens
        self.between_s = between_s
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer a request that is complete."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        if head.startswith(b"GET"):
            self.received = b""
            self.transport.write(READY)
            self.transport.close()
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) >= length:
            self.received = body[length:]
            self.transport.write(HEAD)
            self.write_token(self.tokens, time.monotonic_ns())

    def write_token(self, left: int, came_ns: int) -> None:
        """Write one token now and the next one later."""
        if self.transport.is_closing():
            return
        if left == 0:
            self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            return
        event = EVENT % (came_ns, time.monotonic_ns())
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        asyncio.get_running_loop().call_later(self.between_s, self.write_token, left - 1, came_ns)


async def serve(port: int, tokens: int, between_s: float) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: StampedEngine(tokens, between_s), "127.0.0.1", port, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--between-seconds", type=float, default=0.01)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.port, arguments.tokens, arguments.between_seconds))
