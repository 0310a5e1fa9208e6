"""A made-up cluster that obeys a law of its own, for closing the loop around the scaling law.

Not the controller's model: a step costs a power of the batch, prompts are read in chunks, lengths
are drawn, replicas start late, drain when they go, and the gateway picks the emptiest.
"""

import bisect
import random
from collections import deque
from dataclasses import dataclass, field

from llm_engine.contract import metrics as engine_metrics
from llm_operator.scaling import Replica
from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.samples import KEPT_S, EngineReading, GatewayReading, Samples, Series

FIRST_BOUNDS = tuple(float(b) for b in engine_metrics.TIME_TO_FIRST_TOKEN_BUCKETS_S)
TOKEN_BOUNDS = tuple(float(b) for b in engine_metrics.TIME_PER_TOKEN_BUCKETS_S)
LENGTH_BOUNDS = tuple(float(b) for b in engine_metrics.TOKENS_BUCKETS)


@dataclass(frozen=True)
class Hardware:
    """Seconds of a step: fixed + per_request * n**power + per_prompt * prompt tokens."""

    fixed_s: float
    per_request_s: float
    power: float
    per_prompt_s: float
    chunk_tokens: int
    max_concurrency: int
    start_s: tuple[float, float]


@dataclass
class Request:
    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    prompt_left: int = 0
    first_s: float | None = None
    done_s: float | None = None

    @property
    def first_token_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.arrived_s

    @property
    def per_token_s(self) -> float | None:
        if self.done_s is None or self.first_s is None:
            return None
        return (self.done_s - self.first_s) / max(1, self.output_tokens - 1)


class Counts:
    """A histogram that is written to."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += times
        self.total += value * times

    def read(self) -> Histogram:
        below, sums = 0, []
        for count in self.counts:
            below += count
            sums.append(float(below))
        return Histogram(self.bounds, tuple(sums), self.total)


class Engine:
    """One replica: starts, serves in steps, drains."""

    def __init__(self, name: str, hardware: Hardware, ordered_s: float, ready_s: float) -> None:
        self.name = name
        self.hardware = hardware
        self.ordered_s, self.ready_s = ordered_s, ready_s
        self.terminating_s: float | None = None
        self.waiting: deque[Request] = deque()
        self.prefilling: deque[Request] = deque()
        self.ending: dict[int, list[Request]] = {}
        self.decoding = 0
        self.step = 0
        self.at_s = ready_s
        self.prompt_tokens = self.output_tokens = self.steps = 0
        self.step_s = 0.0
        self.first, self.inter = Counts(FIRST_BOUNDS), Counts(TOKEN_BOUNDS)
        self.per_token = Counts(TOKEN_BOUNDS)
        self.prompts, self.outputs = Counts(LENGTH_BOUNDS), Counts(LENGTH_BOUNDS)

    @property
    def outstanding(self) -> int:
        return len(self.waiting) + len(self.prefilling) + self.decoding

    def accept(self, request: Request, now_s: float) -> None:
        if self.outstanding == 0:
            self.at_s = max(self.at_s, now_s)
        request.prompt_left = request.prompt_tokens
        self.waiting.append(request)

    def run_until(self, now_s: float) -> None:
        while self.outstanding and self.at_s < now_s:
            self._one_step()

    def _one_step(self) -> None:
        hw = self.hardware
        while self.waiting and len(self.prefilling) + self.decoding < hw.max_concurrency:
            self.prefilling.append(self.waiting.popleft())
        budget, done_prompts = hw.chunk_tokens, []
        while self.prefilling and budget:
            request = self.prefilling[0]
            took = min(budget, request.prompt_left)
            budget -= took
            request.prompt_left -= took
            if request.prompt_left == 0:
                done_prompts.append(self.prefilling.popleft())
        prompt = hw.chunk_tokens - budget
        took_s = hw.fixed_s + hw.per_request_s * self.decoding**hw.power + hw.per_prompt_s * prompt
        self.at_s += took_s
        self.step += 1
        self.steps += 1
        self.step_s += took_s
        self.prompt_tokens += prompt
        self.output_tokens += self.decoding + len(done_prompts)
        if self.decoding:
            self.inter.add(took_s, self.decoding)
        for request in self.ending.pop(self.step, ()):
            self._end(request)
            self.decoding -= 1
        for request in done_prompts:
            request.first_s = self.at_s
            self.first.add(self.at_s - request.arrived_s)
            if request.output_tokens == 1:
                self._end(request)
            else:
                self.decoding += 1
                self.ending.setdefault(self.step + request.output_tokens - 1, []).append(request)

    def _end(self, request: Request) -> None:
        request.done_s = self.at_s
        self.prompts.add(request.prompt_tokens)
        self.outputs.add(request.output_tokens)
        self.per_token.add(request.per_token_s or 0.0)

    def reading(self, now_s: float) -> EngineReading:
        return EngineReading(
            at_s=now_s,
            incarnation=self.name,
            running=len(self.prefilling) + self.decoding,
            waiting=len(self.waiting),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            first_token=self.first.read(),
            per_token=self.per_token.read(),
            inter_token=self.inter.read(),
            prompts=self.prompts.read(),
            outputs=self.outputs.read(),
            steps=self.steps,
            step_s=self.step_s,
            max_concurrency=self.hardware.max_concurrency,
        )


@dataclass
class Cluster:
    """Engines behind one gateway, with a scraper; time moves by arrivals and `end_second`."""

    hardware: Hardware
    random: random.Random
    engines: list[Engine] = field(default_factory=list)
    held: deque[Request] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    first: Counts = field(default_factory=lambda: Counts(FIRST_BOUNDS))
    made: int = 0
    ordered: int = 0
    charged_s: float = 0.0
    now_s: float = 0.0
    tracks: dict[str, deque[EngineReading]] = field(default_factory=dict)
    gateway: deque[GatewayReading] = field(default_factory=deque)

    def order(self, replicas: int, deletion_costs: dict[str, int]) -> None:
        self.ordered = replicas
        staying = [engine for engine in self.engines if engine.terminating_s is None]
        for _ in range(replicas - len(staying)):
            ready_s = self.now_s + self.random.uniform(*self.hardware.start_s)
            self.engines.append(Engine(f"replica-{self.made}", self.hardware, self.now_s, ready_s))
            self.made += 1
        staying.sort(key=lambda e: (e.ready_s <= self.now_s, deletion_costs.get(e.name, 0)))
        for engine in staying[: max(0, len(staying) - replicas)]:
            engine.terminating_s = self.now_s

    def ready(self) -> list[Engine]:
        return [e for e in self.engines if e.ready_s <= self.now_s and e.terminating_s is None]

    def replicas(self) -> list[Replica]:
        return [
            Replica(e.name, ready=e.ready_s <= self.now_s, terminating=e.terminating_s is not None)
            for e in self.engines
        ]

    def arrive(self, request: Request) -> None:
        self._advance(request.arrived_s)
        self.requests.append(request)
        self.held.append(request)
        self._dispatch()

    def end_second(self, now_s: float) -> None:
        """Let a second end: it is paid for every pod that exists."""
        self._advance(now_s)
        self._dispatch()
        self.charged_s += len(self.engines)
        self.engines = [e for e in self.engines if e.terminating_s is None or e.outstanding > 0]

    def scrape(self) -> None:
        for engine in self.ready():
            if round(self.now_s) % 2 == 0:
                track = self.tracks.setdefault(engine.name, deque())
                track.append(engine.reading(self.now_s))
                while track[0].at_s < self.now_s - KEPT_S:
                    track.popleft()
        self.gateway.append(
            GatewayReading(
                at_s=self.now_s,
                incarnation="gateway",
                arrivals=len(self.requests),
                held=len(self.held),
                in_flight=sum(engine.outstanding for engine in self.engines),
            )
        )
        while self.gateway[0].at_s < self.now_s - KEPT_S:
            self.gateway.popleft()

    def samples(self) -> Samples:
        return Samples(
            taken_at_s=self.now_s,
            engines={name: Series(tuple(track)) for name, track in self.tracks.items()},
            gateways={"gateway": Series(tuple(self.gateway))},
        )

    def _advance(self, now_s: float) -> None:
        self.now_s = max(self.now_s, now_s)
        for engine in self.engines:
            engine.run_until(now_s)

    def _dispatch(self) -> None:
        ready = self.ready()
        while ready and self.held:
            emptiest = min(ready, key=lambda engine: engine.outstanding)
            emptiest.accept(self.held.popleft(), self.now_s)
