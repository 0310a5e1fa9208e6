"""/healthz that proves progress, /readyz, and /metrics, over HTTP."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LONGEST_SILENCE_S: Final = 120.0
LONGEST_QUEUE_S: Final = 300.0
LONGEST_WATCH_LAG_S: Final = 150.0


@dataclass(frozen=True)
class Progress:
    """Signs of life, as ages in seconds.

    loops         since each endless loop last went round, whether or not the API server answered
    queue_s       how long the oldest LLMDeployment has waited for a look
    watch_lag_s   how long the watches have owed us something that a list has shown
    contact_s     since the API server last answered; shown, but no reason to restart
    """

    loops: dict[str, float]
    queue_s: float
    watch_lag_s: float
    contact_s: float

    def problems(self) -> Iterator[str]:
        """Yield what a restart may cure; an API server that is away is not of that kind."""
        for name, age_s in self.loops.items():
            if age_s > LONGEST_SILENCE_S:
                yield f"the {name} loop has stood still for {age_s:.0f} s"
        if self.queue_s > LONGEST_QUEUE_S:
            yield f"an LLMDeployment has waited for {self.queue_s:.0f} s"
        if self.watch_lag_s > LONGEST_WATCH_LAG_S:
            yield f"a watch has been silent for {self.watch_lag_s:.0f} s of changes"


@dataclass(frozen=True)
class Probes:
    """What the servers ask when they are asked."""

    progress: Callable[[], Progress]
    ready: Callable[[], bool]
    registry: CollectorRegistry
    refresh_metrics: Callable[[], None]


@asynccontextmanager
async def serving(
    probes: Probes, host: str, health_port: int, metrics_port: int
) -> AsyncIterator[None]:
    """Serve probes on one port and metrics on another for as long as the block runs."""

    async def healthz(_: web.Request) -> web.Response:
        progress = probes.progress()
        problems = list(progress.problems())
        body = {
            "problems": problems,
            "loopAgeSeconds": {name: round(age_s, 1) for name, age_s in progress.loops.items()},
            "queueAgeSeconds": round(progress.queue_s, 1),
            "watchLagSeconds": round(progress.watch_lag_s, 1),
            "apiContactAgeSeconds": round(progress.contact_s, 1),
        }
        return web.json_response(body, status=503 if problems else 200)

    async def readyz(_: web.Request) -> web.Response:
        ready = probes.ready()
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        probes.refresh_metrics()
        content = generate_latest(probes.registry)
        return web.Response(body=content, headers={"Content-Type": CONTENT_TYPE_LATEST})

    health = web.Application()
    health.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    scrape = web.Application()
    scrape.add_routes([web.get("/metrics", metrics)])
    runners = [
        web.AppRunner(app, access_log=None, shutdown_timeout=1.0) for app in (health, scrape)
    ]
    try:
        for runner, port in zip(runners, (health_port, metrics_port), strict=True):
            await runner.setup()
            await web.TCPSite(runner, host, port).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
