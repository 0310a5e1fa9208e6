"""The life of `llm-engine serve`: bind, load behind the probes, serve, drain, end.

The port answers before anything heavy is imported: FastAPI comes in on a thread while the engine
loads, and torch lives in the engine's process alone.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn

from llm_engine.contract.arguments import ServeArguments
from llm_engine.server.connections import KEEP_ALIVE_S, SWEEP_S, Connections
from llm_engine.server.front import Front
from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.strict_http import StrictHttp
from llm_engine.server.threads import on_thread

if TYPE_CHECKING:
    from collections.abc import Collection

    from llm_engine.contract.inspection import Failure
    from llm_engine.server.backend import Backend
    from llm_engine.server.connections import Connection
    from llm_engine.server.service import Service

logger = logging.getLogger(__name__)

CLOSE_S: Final = 5
"""Seconds that connections get to close once the drain is over."""


class LoadFailed(Exception):
    """The model could not be loaded.

    cause  what went wrong
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class EngineDied(Exception):
    """The engine failed while it served; nothing can be served any more."""

    @property
    def failure(self) -> "Failure":
        """Return it in the words of the contract."""
        from llm_engine.contract.inspection import Failure, FailureReason

        return Failure(reason=FailureReason.ENGINE_FAILED, message=str(self))


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
    load: "Callable[[], Coroutine[None, None, Backend]]",
) -> None:
    """Serve until drained; raises `LoadFailed` when there is nothing to serve, or `EngineDied`.

    listener  bound already, so that the caller can tell a person what is wrong with the address
    load      makes the engine; runs on the event loop, so what takes long belongs on a thread
    """

    async def live() -> None:
        await _Process(arguments, lifecycle, load).run(listener)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(live())


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
        self,
        arguments: ServeArguments,
        lifecycle: Lifecycle,
        load: "Callable[[], Coroutine[None, None, Backend]]",
    ) -> None:
        self._arguments = arguments
        self._lifecycle = lifecycle
        self._load_engine = load
        self._front = Front(lifecycle)
        self._stop_asked = asyncio.Event()
        self._hurry_asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._engine_died: asyncio.Future[str] = self._loop.create_future()

    async def run(self, listener: socket.socket) -> None:
        """Live from the first answer to the last."""
        self._loop.add_signal_handler(signal.SIGTERM, self._ask_to_stop)
        self._loop.add_signal_handler(signal.SIGINT, self._interrupt)
        config = uvicorn.Config(
            self._front,
            http=StrictHttp,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_S,
        )
        http = _Http(config)
        # uvicorn's protocols have what `Connections` asks for, and do not say so.
        opened = cast("Collection[Connection]", http.server_state.connections)
        connections = Connections(lambda: opened, self._loop.time)
        self._front.check_room = connections.check_room
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        sweeping = asyncio.create_task(_sweep(connections))
        host, port = listener.getsockname()[:2]
        logger.info("listening on %s port %d; loading %s", host, port, self._arguments.model)
        try:
            await self._live()
        finally:
            sweeping.cancel()
            http.should_exit = True
            await serving

    async def _live(self) -> None:
        loading = asyncio.create_task(self._load())
        stop = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            return  # asked to stop before there was anything to serve
        try:
            engine = loading.result()
        except Exception as error:
            raise LoadFailed(error) from error
        try:
            service = await self._begin(engine)
            ends: tuple[asyncio.Future[Any], ...] = (stop, self._engine_died)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not self._engine_died.done():
                await self._drain(service)
            if self._engine_died.done():
                await self._bury(self._engine_died.result())
        finally:
            await asyncio.to_thread(engine.stop)

    async def _load(self) -> "Backend":
        importing = on_thread(_import_api)  # while the engine loads
        engine = await self._load_engine()
        engine.on_failure = self._note_failure
        self._lifecycle.enter("api")
        await importing
        return engine

    def _note_failure(self, reason: str) -> None:
        """Take the engine's last word, from any thread."""

        def note() -> None:
            if not self._engine_died.done():
                self._engine_died.set_result(reason)

        self._loop.call_soon_threadsafe(note)

    async def _bury(self, reason: str) -> None:
        """Let the streams that the engine left behind read how it ended; then end as well."""
        logger.error("%s", reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._front.idle.wait()
        raise EngineDied(reason)

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
        waited: tuple[asyncio.Future[Any], ...] = (*waits, self._engine_died)
        await asyncio.wait(waited, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._front.in_flight and not self._engine_died.done():
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


async def _sweep(connections: Connections) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        closed = connections.sweep()
        if closed:
            logger.warning("closed %d connections whose clients did not move", closed)


def _import_api() -> None:
    from llm_engine.server import service

    del service
