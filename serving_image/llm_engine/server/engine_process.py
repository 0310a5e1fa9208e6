"""The engine in a process of its own, as the server sees it.

Its step loop shares no interpreter with HTTP, tokenization and JSON, so no client slows it down.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Self, cast

from llm_engine.contract.inspection import Failure, FailureReason, ModelRefused
from llm_engine.engine.engine import Engine
from llm_engine.engine.messages import (
    EngineStats,
    EngineStopped,
    FinishReason,
    GenerationRequest,
    StepRecord,
    TokenEvent,
)
from llm_engine.server import link
from llm_engine.server.backend import Tokenizer

STOP_S: Final = 10.0
"""Seconds that the process gets to end before it is killed."""
_EXIT_S: Final = 2.0
"""A process whose end of the link is closed is gone, or about to be."""


class EngineProcess(asyncio.Protocol):
    """A `Backend` whose steps run elsewhere. Lives on the event loop that launched it.

    on_step     told of every step
    on_failure  told once, in words, when the process can serve no more
    """

    tokenizer: Tokenizer

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.on_step: Callable[[StepRecord], None] | None = None
        self.on_failure: Callable[[str], None] | None = None
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._frames = link.Frames()
        self._ready: asyncio.Future[link.Ready] = self._loop.create_future()
        self._on_phase: Callable[[str], None] = lambda _phase: None
        self._receivers: dict[str, Callable[[TokenEvent], None]] = {}
        self._submitted = 0
        self._unseen: deque[int] = deque()  # prompt tokens of what its stats do not know yet
        self._failure: Failure | None = None
        self._stopping = False
        self._stats = EngineStats()

    @classmethod
    async def launch(cls) -> Self:
        """Start the process; it does nothing until `load`.

        To be called on the main thread: the kernel ends the process with the thread that made it.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            words = (sys.executable, "-m", "llm_engine.server.engine_main")
            process = subprocess.Popen(  # noqa: ASYNC220 (spawns in a millisecond)
                [*words, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        backend = cls(process)
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: backend, sock=ours)
        return backend

    async def load(
        self,
        make: Callable[[link.OnPhase], Engine],
        tokenizer: Tokenizer,
        on_phase: Callable[[str], None],
    ) -> None:
        """Make the engine over there; raises ModelRefused.

        tokenizer  the model's, for our own use
        on_phase   told each phase as it begins
        """
        self.tokenizer = tokenizer
        self._on_phase = on_phase
        self._send(link.Load(make))
        ready = await self._ready
        self.shape = ready.shape
        self.dtype = ready.dtype
        self.max_context_tokens = ready.max_context_tokens
        self._stats = ready.stats

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._process.pid

    @property
    def healthy(self) -> bool:
        """False once the process is gone or its engine has died."""
        return self._failure is None and not self._stopping

    def start(self) -> None:
        """Do nothing: the engine runs as soon as it is loaded."""

    def stop(self) -> None:
        """End the process and wait for it; called from a thread that may wait."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._send, link.Stop())
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the process at once: its load is given up."""
        self._stopping = True
        self._process.kill()
        self._process.wait()

    def submit(self, request: GenerationRequest, on_event: Callable[[TokenEvent], None]) -> None:
        """Send a request over; raises EngineStopped when nobody is there."""
        if not self.healthy:
            raise EngineStopped("the engine's process has ended")
        self._receivers[request.request_id] = on_event
        self._submitted += 1
        self._unseen.append(len(request.prompt_tokens))
        self._send(link.Submit(request))

    def abort(self, request_id: str) -> None:
        """Ask for the end of a request; an unknown one is fine, since it may have ended."""
        if request_id in self._receivers:
            self._send(link.Abort(request_id))

    def stats(self) -> EngineStats:
        """Return the state after the last step, with the requests sent since."""
        stats, sent = self._stats, sum(self._unseen)
        return replace(
            stats,
            waiting=stats.waiting + len(self._unseen),
            pending_prefill_tokens=stats.pending_prefill_tokens + sent,
            tokens_in_flight=stats.tokens_in_flight + sent,
        )

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the link."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not say that it is one

    def data_received(self, data: bytes) -> None:
        """Take what the engine's process says."""
        for message in self._frames.feed(data):
            if isinstance(message, link.News):
                self._take(message)
            elif isinstance(message, link.Phase):
                self._on_phase(message.name)
            elif isinstance(message, link.Ready):
                self._ready.set_result(message)
            elif isinstance(message, link.Failed):
                self._fail(message.failure)

    def connection_lost(self, error: Exception | None) -> None:
        """Notice that the process is gone, for whatever reason."""
        del error  # the end of the process says more
        if self._failure is None:
            reason = FailureReason.ENGINE_FAILED
            self._fail(Failure(reason=reason, message=self._last_word()))

    def _take(self, news: link.News) -> None:
        while self._submitted - len(self._unseen) < news.submitted:
            self._unseen.popleft()
        self._stats = news.stats
        for packed in news.events:
            event = TokenEvent(*packed)
            ended = event.finish_reason is not None
            take = self._receivers.pop if ended else self._receivers.get
            receiver = take(event.request_id, None)
            if receiver is not None:
                receiver(event)
        if self.on_step is not None:
            for step in news.steps:
                self.on_step(step)

    def _fail(self, failure: Failure) -> None:
        """End everything that waits for this process."""
        self._failure = failure
        self._transport.close()
        if self._stopping:
            self._ready.cancel()  # nobody may be waiting any more
        elif not self._ready.done():
            self._ready.set_exception(ModelRefused(failure.reason, failure.message))
        receivers, self._receivers = self._receivers, {}
        ending: FinishReason = "abort" if self._stopping else "error"
        for name, receiver in receivers.items():
            receiver(TokenEvent(name, (), ending, error=failure.message))
        self._stats = replace(self._stats, running=0, waiting=0)
        self._unseen.clear()
        if not self._stopping and self.on_failure is not None:
            self.on_failure(failure.message)

    def _last_word(self) -> str:
        """Return how the process ended, and what to do about it."""
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return "the engine's process closed its link; its log says why"
        if code == -signal.SIGKILL:
            return (
                "the engine's process was killed (SIGKILL), as the kernel does when memory runs "
                "out; give the replica more memory, or lower --kv-cache-bytes"
            )
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the engine's process died ({how}); its log says why"

    def _send(self, message: object) -> None:
        if not self._transport.is_closing():
            self._transport.write(link.frame(message))
