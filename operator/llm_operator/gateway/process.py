"""Run the gateway: two ports, what it learns and probes, and an orderly end."""

import asyncio
import gc
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import web
from prometheus_client import disable_created_metrics

from llm_operator.gateway.client_port import ClientPort
from llm_operator.gateway.fleet import Fleet
from llm_operator.gateway.http_server import Handler, HttpServer
from llm_operator.gateway.metrics import Metrics
from llm_operator.gateway.probing import Prober
from llm_operator.gateway.proxy import Proxy
from llm_operator.gateway.refusal import Refusal
from llm_operator.gateway.settings import Settings
from llm_operator.gateway.status_port import StatusPort

log = logging.getLogger(__name__)

KEEP_REPLICA_CONNECTION_S: Final = 4.0
"""Below the 5 s after which uvicorn closes an idle connection: never send into a closing one."""
BACKLOG: Final = 1024
LAST_WORD_S: Final = 1.0

Learn = Callable[[Fleet], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Gateway:
    """A gateway that serves, and the ports it really listens on."""

    settings: Settings
    fleet: Fleet
    clients: ClientPort
    client_site: web.TCPSite
    status_site: web.TCPSite

    async def drain(self) -> None:
        """Stop being ready, then accepting, then give running requests time to finish."""
        settings = self.settings
        self.clients.proxy.draining = True
        log.info("draining: not ready, still accepting for %g s", settings.drain_delay_s)
        await asyncio.sleep(settings.drain_delay_s)
        await self.client_site.stop()
        try:
            async with asyncio.timeout(settings.drain_s):
                await self.clients.quiet()
        except TimeoutError:
            log.warning("draining: %d requests did not end in time", self.clients.running)
            message = "The gateway is shutting down; the request may be sent again."
            self.fleet.refuse_held(Refusal(503, "draining", message, retry_after_s=1))
            await asyncio.sleep(LAST_WORD_S / 2)


@asynccontextmanager
async def serving(settings: Settings, fleet: Fleet) -> AsyncIterator[Gateway]:
    """Serve clients on one port and the status on another until the block ends."""
    metrics = Metrics(fleet)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # bounded per replica by admission
            keepalive_timeout=KEEP_REPLICA_CONNECTION_S,
        ),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        auto_decompress=False,
    ) as session:
        proxy = Proxy(settings, session)
        clients = ClientPort(settings, fleet, proxy, metrics)
        status = StatusPort(fleet, proxy, metrics)
        async with (
            _listening(clients.handle, settings, settings.port) as client_site,
            _listening(status.handle, settings, settings.metrics_port) as status_site,
        ):
            yield Gateway(settings, fleet, clients, client_site, status_site)


@asynccontextmanager
async def _listening(handler: Handler, settings: Settings, port: int) -> AsyncIterator[web.TCPSite]:
    server = HttpServer(handler, settings.max_body_bytes, settings.client_idle_s)
    runner = web.ServerRunner(server, shutdown_timeout=LAST_WORD_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, port, backlog=BACKLOG)
        await site.start()
        yield site
    finally:
        await runner.cleanup()


async def run(settings: Settings, learn: Learn) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `learn` keeps the fleet up to date."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of the text, and nobody reads them
    fleet = Fleet(settings, time.monotonic, first_turn=random.randrange(2**16))
    async with serving(settings, fleet) as gateway, asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(learn(fleet)),
            tasks.create_task(Prober(fleet, settings).run()),
        ]
        gc.collect()
        gc.freeze()  # what start-up made stays: no need to look at it in every collection
        log.info(
            "serving on port %d, status on %d", gateway.client_site.port, gateway.status_site.port
        )
        await stop.wait()
        await gateway.drain()
        for task in background:
            task.cancel()
