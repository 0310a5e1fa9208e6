"""The life of `llm-engine serve`: bind, load behind the probes, serve, drain, end.

The port answers before anything heavy is imported: this module, too, imports torch, FastAPI and
pydantic only on the thread that loads.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, TypeVar

import uvicorn

from llm_engine.contract.arguments import ServeArguments
from llm_engine.server.front import Front
from llm_engine.server.lifecycle import Lifecycle

if TYPE_CHECKING:
    from llm_engine.server.backend import Backend
    from llm_engine.server.service import Service

logger = logging.getLogger(__name__)

CLOSE_S: Final = 5
"""Seconds that connections get to close once the drain is over."""

KEEP_ALIVE_S: Final = 75
"""Longer than clients keep an idle connection, so that it is they who close it."""

Result = TypeVar("Result")


class LoadFailed(Exception):
    """The model could not be loaded.

    cause  what went wrong
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Http(uvicorn.Server):
    """uvicorn without its own idea of signals: a SIGTERM means to drain first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to `_Process`."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises ValueError, in words for a person, when there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        message = f"cannot listen on {host} port {port} ({error}); choose others: --host, --port"
        raise ValueError(message) from error


def serve(
    arguments: ServeArguments,
    listener: socket.socket,
    lifecycle: Lifecycle,
    load: "Callable[[], Backend]",
) -> None:
    """Serve until drained; raises `LoadFailed` when there is nothing to serve.

    listener  bound already, so that the caller can tell a person what is wrong with the address
    load      imports and loads everything heavy; runs on a thread of its own
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_Process(arguments, lifecycle, load).run(listener))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class _Process:
    """One run of the server, from an open port to a closed one."""

    def __init__(
        self, arguments: ServeArguments, lifecycle: Lifecycle, load: "Callable[[], Backend]"
    ) -> None:
        self._arguments = arguments
        self._lifecycle = lifecycle
        self._load_engine = load
        self._front = Front(lifecycle)
        self._stop_asked = asyncio.Event()
        self._hurry_asked = asyncio.Event()

    async def run(self, listener: socket.socket) -> None:
        """Live from the first answer to the last."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ask_to_stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        config = uvicorn.Config(
            self._front,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_S,
        )
        http = _Http(config)
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        host, port = listener.getsockname()[:2]
        logger.info("listening on %s port %d; loading %s", host, port, self._arguments.model)
        try:
            await self._live()
        finally:
            http.should_exit = True
            await serving

    async def _live(self) -> None:
        loading = _on_thread(self._load)
        stop = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            return  # asked to stop before there was anything to serve
        try:
            engine = loading.result()
        except Exception as error:
            raise LoadFailed(error) from error
        try:
            service = await self._begin(engine)
            await stop
            await self._drain(service)
        finally:
            await asyncio.to_thread(engine.stop)

    def _load(self) -> "Backend":
        engine = self._load_engine()
        self._lifecycle.enter("api")
        from llm_engine.server import service  # FastAPI, on this thread: the loop answers probes

        del service
        return engine

    async def _begin(self, engine: "Backend") -> "Service":
        """Put the API behind the port, once it has proved itself with a first token."""
        from llm_engine.server.service import Service

        self._lifecycle.enter("warmup")
        service = Service(self._arguments.served_name, engine, self._lifecycle, self._ask_to_stop)
        try:
            await service.warm_up()
        except Exception as error:
            raise LoadFailed(error) from error
        self._front.why_stalled = service.streams.why_stalled
        gc.collect()
        gc.freeze()  # what is loaded stays: the collector need not look at it again
        self._front.api = service.app
        self._lifecycle.finish_start()
        phases = {name: round(s, 2) for name, s in self._lifecycle.seconds_by_phase().items()}
        took_s = self._lifecycle.start_seconds()
        name = self._arguments.served_name
        logger.info("ready: serving %s after %.1f s", name, took_s, extra={"fields": phases})
        return service

    async def _drain(self, service: "Service") -> None:
        """Let the answers that are on their way come to their end, within the time allowed."""
        limit_s = self._arguments.drain_s
        logger.info("draining: %d requests run, up to %g s", self._front.in_flight, limit_s)
        ends = [self._front.idle.wait(), self._hurry_asked.wait()]
        waits = [asyncio.create_task(end) for end in ends]
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._front.in_flight:
            logger.warning("ended %d requests that ran too long", service.streams.open_requests)
            service.streams.abort_all()

    def _interrupt(self) -> None:
        """Drain at the first Ctrl-C; end at the second."""
        if self._stop_asked.is_set():
            self._hurry_asked.set()
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._lifecycle.draining = True
        self._stop_asked.set()


def _on_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Run `work` on a thread that does not keep the process alive: a load may be given up."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(act)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            failure = error
            settle(lambda: future.set_exception(failure))
        else:
            settle(lambda: future.set_result(result))

    threading.Thread(target=run, name="load", daemon=True).start()
    return future
