"""Offline against served tokens/s: what HTTP, tokenizing and streaming take from the step loop.

    python serving_image/benchmarks/served.py --model SmolLM2.gguf
    python serving_image/benchmarks/served.py --simulate docs/examples/profiles/fast.json

Offline drives the engine in its own process; served sends the same requests over HTTP, all as
streams, from a client that is a process of its own. Both keep `--clients` requests running until
all are done. Rounds alternate, and the ratio is the median over pairs. `--layout thread` puts the
server's engine on a thread of the HTTP process, for comparison. All processes run on this machine
and share its cores.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_engine.engine import Engine, TokenEvent
    from llm_engine.server.backend import Backend

from llm_engine.contract.arguments import ServeArguments

START_S: Final = 300.0
_VOCABULARY: Final = 250  # ids that every tokenizer has, the byte one too


@dataclass(frozen=True)
class Work:
    """One round: so many requests, so many of them at a time.

    output_tokens  of a request in the mean; they lie between half and three halves of it, since
                   requests that all end in one step would all come back in one moment
    """

    requests: int
    clients: int
    prompt_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """Count the output tokens of a round."""
        return sum(tokens for _, tokens in self.asked())

    def asked(self) -> list[tuple[list[int], int]]:
        """Return prompts and output tokens, random and the same every time."""
        chance = random.Random(7)
        half = self.output_tokens // 2
        return [
            (
                [chance.randrange(1, _VOCABULARY) for _ in range(self.prompt_tokens)],
                chance.randint(self.output_tokens - half, self.output_tokens + half),
            )
            for _ in range(self.requests)
        ]


def main() -> None:
    """Measure, print a line per round, and the medians at the end."""
    options = _parser().parse_args()
    work = Work(options.requests, options.clients, options.prompt_tokens, options.output_tokens)
    if options.role == "offline":
        return _offline(_arguments(options, 0), work)
    if options.role == "server":
        return _server(_arguments(options, options.port), options.layout)
    if options.role == "client":
        return asyncio.run(_client(options.port, work))
    report = _measure(options, work)
    print(json.dumps({key: value for key, value in report.items() if key != "rounds"}, indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--model", help="a folder, a .gguf file or hf://…")
    option("--simulate", metavar="PROFILE", help="a latency profile in place of a model")
    option("--layout", choices=["process", "thread"], default="process")
    option("--requests", type=int, default=256)
    option("--clients", type=int, default=64)
    option("--prompt-tokens", type=int, default=32)
    option("--output-tokens", type=int, default=64)
    option("--rounds", type=int, default=5)
    option("--output", type=Path, metavar="FILE", help="write the report as JSON")
    option("--role", choices=["offline", "server", "client"], help=argparse.SUPPRESS)
    option("--port", type=int, help=argparse.SUPPRESS)
    return parser


def _arguments(options: argparse.Namespace, port: int) -> ServeArguments:
    return ServeArguments(
        model=options.model or options.simulate,
        served_name="measured",
        host="127.0.0.1",
        port=port,
        max_context_tokens=options.prompt_tokens + 2 * options.output_tokens,
        simulate=options.simulate,
    )


def _make(arguments: ServeArguments) -> "partial[Engine]":
    """Return what makes the engine, here or in another process."""
    from llm_engine.engine.simulation import read_profile, simulated_engine
    from llm_engine.server.starting import make_engine

    if arguments.simulate is None:
        return partial(make_engine, arguments)
    return partial(simulated_engine, read_profile(Path(arguments.simulate)))


def _offline(arguments: ServeArguments, work: Work) -> None:
    """Run a round for each line of stdin and print its seconds."""
    from llm_engine.engine import GenerationRequest, SamplingParameters

    engine = _make(arguments)(on_phase=lambda _phase: None)
    engine.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        ended: SimpleQueue[TokenEvent] = SimpleQueue()

        def take(event: "TokenEvent", put: Any = ended.put) -> None:
            if event.finish_reason is not None:
                put(event)

        began_s = time.monotonic()
        for number, (prompt, tokens) in enumerate(work.asked()):
            if number >= work.clients:
                assert ended.get().finish_reason == "length"
            sampling = SamplingParameters(tokens, temperature=0.0, ignore_eos=True)
            engine.submit(GenerationRequest(str(number), tuple(prompt), sampling), take)
        for _ in range(work.clients):
            assert ended.get().finish_reason == "length"
        print(time.monotonic() - began_s, flush=True)
    os._exit(0)


def _server(arguments: ServeArguments, layout: str) -> None:
    """Serve as `llm-engine serve` does, with the engine where the layout wants it."""
    from llm_engine.server.lifecycle import Lifecycle, process_began_s
    from llm_engine.server.process import bind, serve
    from llm_engine.server.threads import on_thread

    lifecycle = Lifecycle(process_began_s())
    make = _make(arguments)

    async def load() -> "Backend":
        if layout == "thread":
            return await on_thread(partial(make, on_phase=lifecycle.enter))
        from llm_engine.server.starting import launch, open_model
        from llm_engine.tokenizer.byte_tokenizer import ByteTokenizer

        process = await launch()
        tokenizer = ByteTokenizer() if arguments.simulate else open_model(arguments.model)[1]
        await process.load(make, tokenizer, lifecycle.enter)
        return process

    serve(arguments, bind(arguments.host, arguments.port), lifecycle, load)
    os._exit(0)


async def _client(port: int, work: Work) -> None:
    """Run a round for each line of stdin and print its seconds."""
    os.nice(10)  # elsewhere a client has a machine of its own
    print("ready", flush=True)
    for _ in sys.stdin:
        began_s = time.monotonic()
        asked = iter(work.asked())
        async with asyncio.TaskGroup() as clients:
            for _ in range(work.clients):
                clients.create_task(_ask_all(port, asked))
        print(time.monotonic() - began_s, flush=True)


async def _ask_all(port: int, asked: Iterator[tuple[list[int], int]]) -> None:
    """Be one client: take a prompt, read its stream to the end, take the next."""
    for prompt, tokens in asked:
        assert await _stream(port, prompt, tokens) == tokens


async def _stream(port: int, prompt: list[int], output_tokens: int) -> int:
    """Read one stream to its end and return the tokens that the server says it had."""
    body = json.dumps(
        {
            "model": "measured",
            "prompt": prompt,
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    last = b""
    while (line := await reader.readline()) != b"data: [DONE]\n":
        if not line:
            raise ConnectionError("the stream broke off")
        last = line if line.startswith(b"data:") else last
    writer.close()
    tokens: int = json.loads(last[5:])["usage"]["completion_tokens"]
    return tokens


def _measure(options: argparse.Namespace, work: Work) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        options.port = free.getsockname()[1]
    offline = _start("offline", options)
    server = _start("server", options)
    _wait_until_ready(options.port, server)
    client = _start("client", options)
    try:
        for worker in (offline, client):
            assert worker.stdout is not None
            worker.stdout.readline()
            _round(worker)  # warm
        rounds = []
        for _ in range(options.rounds):
            offline_s, offline_cpu_s = _timed(offline, offline.pid)
            served_s, served_cpu_s = _timed(client, _step_loop_pid(server.pid))
            rounds.append(
                {
                    "offline_s": offline_s,
                    "served_s": served_s,
                    "offline_cpu_s": offline_cpu_s,
                    "served_cpu_s": served_cpu_s,
                }
            )
            print(
                f"offline {work.tokens / offline_s:9.1f} tokens/s   "
                f"served {work.tokens / served_s:9.1f} tokens/s   {offline_s / served_s:6.1%}",
                file=sys.stderr,
            )
    finally:
        for worker in (client, server, offline):
            worker.terminate()
            worker.wait()
    return {
        "model": options.model or options.simulate,
        "layout": options.layout,
        "requests": work.requests,
        "clients": work.clients,
        "prompt_tokens": work.prompt_tokens,
        "output_tokens": work.output_tokens,
        "cpus": len(os.sched_getaffinity(0)),
        "offline_tokens_per_s": _median(rounds, lambda r: work.tokens / r["offline_s"]),
        "served_tokens_per_s": _median(rounds, lambda r: work.tokens / r["served_s"]),
        "served_of_offline": _median(rounds, lambda r: r["offline_s"] / r["served_s"]),
        "offline_step_loop_cpu_s": _median(rounds, lambda r: r["offline_cpu_s"]),
        "served_step_loop_cpu_s": _median(rounds, lambda r: r["served_cpu_s"]),
        "rounds": rounds,
    }


def _timed(worker: "subprocess.Popen[str]", step_loop_pid: int) -> tuple[float, float]:
    """Return a round's seconds, and the CPU seconds that the step loop's process took for it.

    The second figure hardly depends on what else the machine does.
    """
    before_s = _cpu_s(step_loop_pid)
    return _round(worker), _cpu_s(step_loop_pid) - before_s


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _step_loop_pid(server_pid: int) -> int:
    """Return the server's child, which runs the engine; the server itself where it has none."""
    children = Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split()
    return int(children[0]) if children else server_pid


def _median(rounds: list[dict[str, float]], read: "Callable[[dict[str, float]], float]") -> float:
    return round(statistics.median(map(read, rounds)), 4)


def _start(role: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    words = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--role",
        role,
        "--port",
        str(options.port),
    ]
    for name in (
        "model",
        "simulate",
        "layout",
        "requests",
        "clients",
        "prompt_tokens",
        "output_tokens",
    ):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _round(worker: "subprocess.Popen[str]") -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def _wait_until_ready(port: int, server: "subprocess.Popen[str]") -> None:
    from http.client import HTTPConnection

    ends_s = time.monotonic() + START_S
    while time.monotonic() < ends_s:
        if server.poll() is not None:
            raise SystemExit("the server ended before it was ready; its words are above")
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit(f"the server was not ready within {START_S:.0f} s")


if __name__ == "__main__":
    main()
