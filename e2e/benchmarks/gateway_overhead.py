"""Measure what the gateway adds to a request and to a token, over going to the engine directly.

    python -m e2e.benchmarks.gateway_overhead --rates 50 200 --json overhead.json

Engine and gateway are processes of their own on loopback. Every token carries the time at which
the engine wrote it, so that each way is measured by itself:

request  client's last byte sent -> engine has the request, plus engine's first token written ->
         client has it
token    engine wrote it -> client has it, for all tokens
"""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

BODY = json.dumps(
    {
        "model": "stamped",
        "stream": True,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "word " * 200}],
    }
).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
STAMPS = re.compile(rb'"came_ns":(\d+),"sent_ns":(\d+)')
END = b"data: [DONE]"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Samples:
    """What the clients saw; milliseconds."""

    request_ms: list[float] = field(default_factory=list)
    token_ms: list[float] = field(default_factory=list)
    failed: int = 0


class Client(asyncio.Protocol):
    """One connection that sends a request, records its tokens, and can then be used again."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = cast(asyncio.Transport, transport)

    async def ask(self) -> None:
        """Send one request and wait for the end of its answer."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first = True
        self.tail = b""
        self.sent_ns = time.monotonic_ns()
        self.transport.write(REQUEST)
        await self.ended

    def data_received(self, data: bytes) -> None:
        """Compare the stamps with now."""
        now_ns = time.monotonic_ns()
        for came, sent in STAMPS.findall(data):
            self.samples.token_ms.append((now_ns - int(sent)) / 1e6)
            if self.first:
                self.first = False
                way_there_ns = int(came) - self.sent_ns
                way_back_ns = now_ns - int(sent)
                self.samples.request_ms.append((way_there_ns + way_back_ns) / 1e6)
        self.tail = (self.tail + data)[-64:]
        if END in self.tail and self.tail.endswith(LAST_CHUNK):
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count an answer that broke off."""
        del exc
        if not self.ended.done():
            self.samples.failed += 1
            self.ended.set_result(None)


async def at_once(port: int, streams: int) -> Samples:
    """Send that many requests at the same moment, each over a connection of its own."""
    loop = asyncio.get_running_loop()
    samples = Samples()
    connections = [
        await loop.create_connection(lambda: Client(samples), "127.0.0.1", port)
        for _ in range(streams)
    ]
    await asyncio.gather(*(client.ask() for _, client in connections))
    for transport, _ in connections:
        transport.close()
    return samples


async def load(port: int, per_s: float, seconds: float) -> Samples:
    """Send requests at random moments, `per_s` on average, whatever becomes of them."""
    loop = asyncio.get_running_loop()
    samples = Samples()
    idle: list[Client] = []
    chance = random.Random(1)

    async def one() -> None:
        if idle:
            client = idle.pop()
        else:
            _, client = await loop.create_connection(lambda: Client(samples), "127.0.0.1", port)
        await client.ask()
        if not client.transport.is_closing():
            idle.append(client)

    start_s = at_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        while at_s < start_s + seconds:
            at_s += chance.expovariate(per_s)
            await asyncio.sleep(at_s - time.monotonic())
            tasks.create_task(one())
    for client in idle:
        client.transport.close()
    return samples


@dataclass(frozen=True)
class Row:
    """One measured way at one rate; milliseconds."""

    way: str
    requests_per_s: float
    requests: int
    failed: int
    request_p50_ms: float
    request_p99_ms: float
    token_p50_ms: float
    token_p99_ms: float
    gateway_cpu: float | None
    gateway_rss_mib: float | None


def run(loading: Coroutine[Any, Any, Samples]) -> Samples:
    """Run on uvloop, as the gateway does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(loading)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of them lie."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def measure(way: str, port: int, per_s: float, seconds: float, pid: int | None) -> Row:
    """Load one way and summarize; `pid` is the gateway's, where the way goes through it."""
    cpu_s, began_s = _cpu_s(pid), time.monotonic()
    samples = run(load(port, per_s, seconds))
    busy = (_cpu_s(pid) - cpu_s) / (time.monotonic() - began_s)
    return Row(
        way,
        per_s,
        len(samples.request_ms),
        samples.failed,
        percentile(samples.request_ms, 0.50),
        percentile(samples.request_ms, 0.99),
        percentile(samples.token_ms, 0.50),
        percentile(samples.token_ms, 0.99),
        round(busy, 2) if pid else None,
        round(_rss_mib(pid), 1) if pid else None,
    )


def _cpu_s(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def running(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process of ours until the block ends."""
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def both_ways(tokens: int, between_s: float) -> Iterator[tuple[int, int, int]]:
    """Yield the engine's port, the gateway's port and the gateway's process id."""
    engine_words = ["-m", "e2e.benchmarks.stamped_engine"]
    engine_words += ["--tokens", str(tokens), "--between-seconds", str(between_s)]
    with running(engine_words) as engine:
        assert engine.stdout is not None
        engine_port = int(engine.stdout.readline())
        port = free_port()
        gateway_words = ["-m", "llm_operator.cli", "gateway", "--log-level", "warning"]
        gateway_words += ["--static", f"stamped=http://127.0.0.1:{engine_port}"]
        gateway_words += ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", "0"]
        gateway_words += ["--replica-requests", "100000", "--connect-seconds", "10"]
        with running(gateway_words) as gateway:
            wait_for(port)
            yield engine_port, port, gateway.pid


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, within_s: float = 30.0) -> None:
    """Wait until somebody listens."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def main() -> None:
    """Print a table and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[50.0, 200.0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--between-seconds", type=float, default=0.01)
    parser.add_argument("--streams", type=int, default=0, help="also so many at once, three times")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    print(f"{'way':8} {'req/s':>6} {'n':>6} {'fail':>5} {'request P50':>12} {'P99':>8}"
          f" {'token P50':>10} {'P99':>8} {'CPU':>5} {'RSS MiB':>8}   (ms)")  # fmt: skip
    with both_ways(arguments.tokens, arguments.between_seconds) as (engine, gateway, pid):
        measure("warm-up", gateway, 50, 2, pid)
        for rate in arguments.rates:
            for way, port, of in (("direct", engine, None), ("gateway", gateway, pid)):
                row = measure(way, port, rate, arguments.seconds, of)
                rows.append(row)
                print(f"{way:8} {rate:6.0f} {row.requests:6} {row.failed:5}"
                      f" {row.request_p50_ms:12.2f} {row.request_p99_ms:8.2f}"
                      f" {row.token_p50_ms:10.2f} {row.token_p99_ms:8.2f}"
                      f" {row.gateway_cpu or '':>5} {row.gateway_rss_mib or '':>8}")  # fmt: skip
        for _ in range(3 if arguments.streams else 0):
            samples = run(at_once(gateway, arguments.streams))
            tokens = f"{len(samples.token_ms)} of {arguments.streams * arguments.tokens} tokens"
            print(f"{arguments.streams} streams at once: {tokens}, {_rss_mib(pid):.1f} MiB")
    if arguments.json:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        report = {"machine": machine, "tokens": arguments.tokens, "rows": [asdict(r) for r in rows]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
