"""A real gateway over real sockets, with fake engines behind it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from llm_operator.gateway.fleet import Fleet, Served
from llm_operator.gateway.model import Model
from llm_operator.gateway.probing import Prober
from llm_operator.gateway.process import Gateway, serving
from llm_operator.gateway.settings import Settings
from tests.gateway.fake_engine import Answer, FakeEngine

QUICK = Settings(
    host="127.0.0.1",
    port=0,
    metrics_port=0,
    cold_start_s=10.0,
    busy_wait_s=10.0,
    first_token_s=10.0,
    whole_answer_s=10.0,
    between_chunks_s=10.0,
    probe_every_s=0.2,
    probe_again_s=0.1,
    drain_delay_s=0.1,
    drain_s=5.0,
)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **fields}).encode()


@dataclass
class World:
    gateway: Gateway
    fleet: Fleet
    client: aiohttp.ClientSession
    stack: AsyncExitStack
    url: str
    status_url: str
    urls: dict[str, list[str]] = field(default_factory=dict)

    async def engine(self, answer: Answer | None = None, model: str = "m") -> FakeEngine:
        """Start an engine; it is no replica before `has` says so."""
        engine = FakeEngine()
        if answer is not None:
            engine.answer = answer
        await self.stack.enter_async_context(engine.listening())
        self.urls.setdefault(model, []).append(engine.url)
        return engine

    def has(self, **replicas: list[str]) -> None:
        """Tell the gateway which models there are, and their replicas."""
        self.fleet.update({m: Served(1_700_000_000, tuple(urls)) for m, urls in replicas.items()})

    async def replica(self, answer: Answer | None = None, model: str = "m") -> FakeEngine:
        """Start an engine and make it a replica at once."""
        engine = await self.engine(answer, model)
        self.has(**self.urls)
        return engine

    @property
    def model(self) -> Model:
        return self.fleet.models["m"]

    def post(
        self, data: bytes | None = None, path: str = "/v1/completions", **options: Any
    ) -> "aiohttp.client._RequestContextManager":
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        data = body() if data is None else data
        return self.client.post(self.url + path, data=data, headers=headers, **options)

    async def ask(self, **fields: Any) -> tuple[int, str]:
        """Return status and text of one answer."""
        async with self.post(body(**fields)) as response:
            return response.status, await response.text()

    async def error(self, data: bytes | None = None, **options: Any) -> tuple[int, Any]:
        """Return status and error object of one answer."""
        async with self.post(data, **options) as response:
            return response.status, (await response.json())["error"]

    async def metric(self, name: str, **labels: str) -> float:
        async with self.client.get(self.status_url + "/metrics") as response:
            families = text_string_to_metric_families(await response.text())
        for sample in (sample for family in families for sample in family.samples):
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
        raise KeyError(name)


async def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait for a fact; fail when it does not come true in time."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def a_world(settings: Settings = QUICK, probes: bool = False) -> AsyncIterator[World]:
    fleet = Fleet(settings, time.monotonic)
    async with (
        AsyncExitStack() as stack,
        serving(settings, fleet) as gateway,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=40)
        ) as client,
    ):
        if probes:
            prober = asyncio.create_task(Prober(fleet, settings).run())
            stack.callback(prober.cancel)
        yield World(
            gateway=gateway,
            fleet=fleet,
            client=client,
            stack=stack,
            url=f"http://127.0.0.1:{gateway.client_site.port}",
            status_url=f"http://127.0.0.1:{gateway.status_site.port}",
        )
