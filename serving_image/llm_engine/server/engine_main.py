"""The process that runs the engine: loads it, feeds it, and reports every step.

Started by `EngineProcess`, and never outlives it. What it writes to stderr is the server's log.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from queue import SimpleQueue
from typing import Final

from llm_engine.contract.inspection import Failure, FailureReason
from llm_engine.engine.engine import Engine
from llm_engine.engine.messages import EngineStats, EngineStopped, StepRecord, TokenEvent
from llm_engine.server.failure import failure_of
from llm_engine.server.link import (
    Abort,
    Failed,
    Frames,
    Load,
    News,
    PackedEvent,
    Phase,
    Ready,
    Submit,
    frame,
    pack,
)
from llm_engine.server.log_lines import start_logging

_PR_SET_PDEATHSIG: Final = 1
_READ_BYTES: Final = 1 << 20


def main() -> None:
    """Run until the server says stop, or is gone.

    Usage: python -m llm_engine.server.engine_main SOCKET PARENT
    """
    descriptor, parent = map(int, sys.argv[1:])
    _die_with(parent)
    # A signal to the whole group means the server; it tells us when its last stream is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_logging()
    _Child(socket.socket(fileno=descriptor)).run()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, even while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


class _Child:
    """The engine's end of the link."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._outbox: SimpleQueue[object] = SimpleQueue()
        self._engine: Engine | None = None
        self._events: list[PackedEvent] = []
        self._steps: list[StepRecord] = []
        self._submitted = 0

    def run(self) -> None:
        """Obey until the link ends; this thread only reads, so that the other end never waits."""
        threading.Thread(target=self._send_all, name="send", daemon=True).start()
        frames = Frames()
        while data := self._connection.recv(_READ_BYTES):
            for message in frames.feed(data):
                if isinstance(message, Load):
                    threading.Thread(target=self._load, args=(message,), name="load").start()
                elif isinstance(message, Submit):
                    self._submit(message)
                elif isinstance(message, Abort) and self._engine is not None:
                    self._engine.abort(message.request_id)
                else:
                    self._end(0)
        self._end(0)

    def _load(self, load: Load) -> None:
        try:
            engine = load.make(lambda name: self._outbox.put(Phase(name)))
            engine.on_step = self._note_step
            engine.on_publish = self._report
            engine.on_failure = self._fail
            engine.start()
        except BaseException as error:
            self._outbox.put(Failed(failure_of(error)))
            return
        self._engine = engine
        self._outbox.put(
            Ready(engine.shape, engine.dtype, engine.max_context_tokens, engine.stats())
        )

    def _submit(self, message: Submit) -> None:
        assert self._engine is not None, "the server submits once we are ready"
        self._submitted += 1
        try:
            self._engine.submit(message.request, self._take)
        except (ValueError, EngineStopped) as error:
            refusal = TokenEvent(message.request.request_id, (), "error", error=str(error))
            stats = self._engine.stats()
            self._outbox.put(News([pack(refusal)], [], stats, self._submitted))

    # Called from the engine's thread.

    def _take(self, event: TokenEvent) -> None:
        self._events.append(pack(event))

    def _note_step(self, step: StepRecord) -> None:
        self._steps.append(step)

    def _report(self, stats: EngineStats) -> None:
        self._outbox.put(News(self._events, self._steps, stats, self._submitted))
        self._events, self._steps = [], []

    def _fail(self, reason: str) -> None:
        self._outbox.put(Failed(Failure(reason=FailureReason.ENGINE_FAILED, message=reason)))

    # On a thread of its own, which has the interpreter while the engine waits for its device.

    def _send_all(self) -> None:
        while True:
            message = self._outbox.get()
            try:
                self._connection.sendall(frame(message))
            except OSError:
                self._end(0)  # nobody listens any more
            if isinstance(message, Failed):
                self._end(1)

    def _end(self, code: int) -> None:
        sys.stderr.flush()
        os._exit(code)  # not sys.exit: torch takes its time to unload


if __name__ == "__main__":
    main()
