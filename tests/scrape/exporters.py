"""Real metrics as an engine and a gateway write them, served by a real server on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llm_engine.contract import metrics as engine
from llm_operator.api import gateway_metrics as gateway

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EngineMetrics:
    """What an engine exports, all of it, so that reading it costs what it will cost."""

    def __init__(self, model: str = "smollm2") -> None:
        self.registry = CollectorRegistry()
        self.model = model
        self.gauges = {
            name: Gauge(name, name, [engine.MODEL_LABEL], registry=self.registry)
            for name in (
                engine.REQUESTS_RUNNING, engine.REQUESTS_WAITING, engine.KV_CACHE_USAGE,
                engine.PENDING_PREFILL_TOKENS, engine.TOKENS_IN_FLIGHT, engine.MAX_CONCURRENCY,
                engine.DRAINING,
            )
        }  # fmt: skip
        self.counters = {
            name: Counter(name, name, [engine.MODEL_LABEL], registry=self.registry)
            for name in (
                engine.PROMPT_TOKENS, engine.GENERATION_TOKENS, engine.PREEMPTIONS,
                engine.RECOMPUTED_TOKENS,
            )
        }  # fmt: skip
        self.histograms = {
            name: Histogram(
                name, name, [engine.MODEL_LABEL], registry=self.registry, buckets=buckets
            )
            for names, buckets in (
                (
                    (
                        engine.TIME_PER_OUTPUT_TOKEN,
                        engine.INTER_TOKEN_LATENCY,
                        engine.STEP_SECONDS,
                    ),
                    engine.TIME_PER_TOKEN_BUCKETS_S,
                ),
                ((engine.TIME_TO_FIRST_TOKEN,), engine.TIME_TO_FIRST_TOKEN_BUCKETS_S),
                (
                    (
                        engine.E2E_LATENCY,
                        engine.QUEUE_TIME,
                        engine.PREFILL_TIME,
                        engine.DECODE_TIME,
                    ),
                    engine.REQUEST_SECONDS_BUCKETS_S,
                ),
                (
                    (
                        engine.REQUEST_PROMPT_TOKENS,
                        engine.REQUEST_GENERATION_TOKENS,
                        engine.ITERATION_TOKENS,
                    ),
                    engine.TOKENS_BUCKETS,
                ),
            )
            for name in names
        }
        for metric in (self.gauges | self.counters | self.histograms).values():
            metric.labels(model)

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name].labels(self.model).set(value)

    def count(self, name: str, value: float) -> None:
        self.counters[name].labels(self.model).inc(value)

    def observe(self, name: str, value: float) -> None:
        self.histograms[name].labels(self.model).observe(value)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


class GatewayMetrics:
    """What a gateway exports of some models."""

    def __init__(self, *models: str) -> None:
        self.registry = CollectorRegistry()
        label = [gateway.MODEL_LABEL]
        self.arrivals = Counter(gateway.ARRIVALS, "a", label, registry=self.registry)
        self.held = Gauge(gateway.HELD_REQUESTS, "h", label, registry=self.registry)
        self.oldest = Gauge(gateway.OLDEST_WAIT_SECONDS, "o", label, registry=self.registry)
        self.in_flight = Gauge(gateway.IN_FLIGHT_REQUESTS, "i", label, registry=self.registry)
        self.first = Histogram(
            gateway.TIME_TO_FIRST_TOKEN_SECONDS, "t", label, registry=self.registry
        )
        for model in models:
            for metric in (self.arrivals, self.held, self.oldest, self.in_flight, self.first):
                metric.labels(model)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def answering(text: Callable[[], str]) -> Handler:
    """Return a handler that answers with the text of the moment."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text())

    return handler


async def never_answering(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    """Answer with 100 MB."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"# nothing\n" * 100_000)
    return response


async def broken(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def elsewhere(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://192.0.2.1/")


@asynccontextmanager
async def served(**handlers: Handler) -> AsyncIterator[dict[str, str]]:
    """Serve each handler under its name; yield the URLs."""
    app = web.Application(handler_args={"handler_cancellation": True})
    for name, handler in handlers.items():
        app.router.add_get(f"/{name}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield {name: f"http://{host}:{port}/{name}" for name in handlers}
    finally:
        await runner.cleanup()
