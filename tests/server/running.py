"""A server as a process of its own, spoken to over loopback."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.server.profiles import a_profile

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    process: asyncio.subprocess.Process
    client: httpx.AsyncClient

    async def status(self, path: str) -> int | None:
        try:
            return (await self.client.get(path)).status_code
        except httpx.TransportError:
            return None

    async def wait_for(self, path: str, status: int = 200) -> None:
        for _ in range(600):
            if await self.status(path) == status:
                return
            assert self.process.returncode is None, "the server ended"
            await asyncio.sleep(0.05)
        raise AssertionError(f"{path} never said {status}")

    async def wait_for_line(self, line: str) -> None:
        for _ in range(600):
            if line in (await self.client.get("/metrics")).text.splitlines():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"the metrics never said {line}")

    async def stream(self) -> str:
        body = {"model": "fake", "prompt": "hi", "max_tokens": 99, "stream": True}
        return (await self.client.post("/v1/completions", json=body)).text

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def simulated(**profile: Any) -> Iterator[int]:
    """Run a server with the real scheduler and a simulated model; yield its port."""
    port = free_port()
    words = ["-m", "tests.server.simulated_server", str(port), "5"]
    words.append(a_profile(**profile).model_dump_json())
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'serving_image'}"}
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment)
    try:
        for _ in range(1200):
            assert process.poll() is None, "the server ended"
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait(10)


@asynccontextmanager
async def running(
    *words: str, port: int | None = None, environment: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """Run a program that listens on `port`, and end it whatever happens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'serving_image'}"} | (environment or {}),
        stderr=asyncio.subprocess.PIPE,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            yield Running(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
