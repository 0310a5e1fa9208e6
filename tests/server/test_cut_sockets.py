"""A client that vanishes after any byte of a stream leaves nothing behind. Real sockets."""

import asyncio
import json
import socket
import struct
from typing import Final

import uvicorn

from llm_engine.engine import Engine, StepRecord
from llm_engine.engine.simulation import simulated_engine
from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.service import Service
from tests.server.profiles import a_profile
from tests.server.served import until

BYTES: Final = 350
"""Header, the first events and some of the next."""

_BODY: Final = json.dumps(
    {"model": "s", "prompt": "hi", "stream": True, "max_tokens": 900, "ignore_eos": True}
).encode()
REQUEST: Final = (
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Watched:
    """Notes how many steps were made between an abort and the blocks being free."""

    def __init__(self, engine: Engine) -> None:
        self.steps = 0
        self.late_steps: list[int] = []
        self._engine = engine
        self._abort = engine.abort
        self._count = engine.on_step
        engine.abort = self.abort  # type: ignore[method-assign]
        engine.on_step = self.step_done

    def step_done(self, step: StepRecord) -> None:
        self.steps += 1
        if self._count is not None:
            self._count(step)

    def abort(self, request_id: str) -> None:
        began = self.steps
        self._abort(request_id)
        while self._engine.stats().kv_usage > 0:
            pass
        self.late_steps.append(self.steps - began)


async def read_and_vanish(port: int, count: int) -> None:
    """Read so many bytes of the answer, then reset the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await reader.readexactly(count)
    # No farewell: the kernel answers what still comes with a reset.
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def test_a_socket_cut_after_any_byte_frees_the_blocks_within_one_step() -> None:
    engine = simulated_engine(a_profile(step_s=0.0002))
    lifecycle = Lifecycle(0.0)
    service = Service("s", engine, lifecycle, lambda: None)
    await service.warm_up()
    lifecycle.finish_start()
    watched = Watched(engine)
    listener = socket.create_server(("127.0.0.1", 0))
    http = uvicorn.Server(uvicorn.Config(service.app, lifespan="off", log_config=None, ws="none"))
    serving = asyncio.create_task(http.serve([listener]))
    await until(lambda: http.started)
    port = listener.getsockname()[1]
    for count in range(1, BYTES):
        await read_and_vanish(port, count)
        await until(lambda: not http.server_state.tasks)
        assert engine.stats().kv_usage == 0
    await until(lambda: service.streams.open_requests == 0)
    assert engine.stats().is_idle
    # Some vanish between the header and the first token, before there is anything to abort.
    assert len(watched.late_steps) > BYTES / 2
    assert max(watched.late_steps) <= 1
    http.should_exit = True
    await serving
    engine.stop()
