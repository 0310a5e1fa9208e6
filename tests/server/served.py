"""The API over a fake engine, spoken to without a port."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.service import Service
from tests.server.fake_engine import FakeEngine


@dataclass
class Served:
    engine: FakeEngine
    service: Service
    lifecycle: Lifecycle
    client: httpx.AsyncClient
    drains: list[str]

    async def complete(self, **fields: Any) -> httpx.Response:
        """Ask `/v1/completions`; a prompt and the right model unless said otherwise."""
        body = {"model": "fake", "prompt": "hi", **fields}
        return await self.client.post("/v1/completions", json=body)

    async def chat(self, **fields: Any) -> httpx.Response:
        """Ask `/v1/chat/completions`; one message and the right model unless said otherwise."""
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": "fake", "messages": messages, **fields}
        return await self.client.post("/v1/chat/completions", json=body)

    async def metrics(self) -> str:
        return (await self.client.get("/metrics")).text


@asynccontextmanager
async def serving(engine: FakeEngine) -> AsyncIterator[Served]:
    lifecycle = Lifecycle(0.0)
    drains: list[str] = []
    service = Service("fake", engine, lifecycle, lambda: drains.append("drain"))
    await service.warm_up()
    engine.seen.clear()
    lifecycle.finish_start()
    transport = httpx.ASGITransport(app=service.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        yield Served(engine, service, lifecycle, client, drains)
    engine.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait, for 60 s at most, until something has come about."""
    for _ in range(12_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


def events(body: str) -> list[Any]:
    """Return the JSON of every server-sent event; "[DONE]" stays text."""
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
