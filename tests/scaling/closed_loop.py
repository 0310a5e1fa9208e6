"""Runs the scaling law around the made-up cluster and says how well users and payers fared."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from llm_operator.scaling import ScalingRule, ScalingState, decide_replicas, load_of
from tests.scaling.plant import Cluster, Hardware, Request

LOOK_S = 5


@dataclass(frozen=True)
class Case:
    name: str
    hardware: Hardware
    rule: ScalingRule
    rate_per_s: Callable[[float], float]
    lasts_s: int
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    knee_per_s: float  # of one replica: the most at which the percentile meets both targets
    first_replicas: int = 1
    warm: bool = True


@dataclass
class Report:
    case: Case
    requests: list[Request]
    charged_s: float
    changes: list[tuple[float, int, str]] = field(default_factory=list)
    peak: int = 0
    state: ScalingState = field(default_factory=ScalingState)

    def _joint(self, requests: list[Request]) -> float:
        met = [self._met(request) for request in requests]
        return sum(met) / max(1, len(met))

    def _met(self, request: Request) -> bool:
        rule = self.case.rule
        first_s, token_s = request.first_token_s, request.per_token_s
        return (
            first_s is not None
            and token_s is not None
            and first_s <= (rule.time_to_first_token_s or math.inf)
            and token_s <= (rule.time_per_output_token_s or math.inf)
        )

    @property
    def attainment(self) -> float:
        return self._joint(self.requests)

    @property
    def lost(self) -> int:
        return sum(request.done_s is None for request in self.requests)

    @property
    def replica_hours(self) -> float:
        return self.charged_s / 3600

    @property
    def oracle_hours(self) -> float:
        """Hours of somebody who knows the rate beforehand and starts in time."""
        case, rule = self.case, self.case.rule
        replicas = [
            max(
                rule.min_replicas,
                min(rule.max_replicas, math.ceil(case.rate_per_s(t) / case.knee_per_s - 1e-9)),
            )
            for t in range(case.lasts_s)
        ]
        return sum(replicas) / 3600

    @property
    def turns(self) -> int:
        """Changes of direction."""
        numbers = [self.case.first_replicas, *(n for _, n, _ in self.changes)]
        signs = [b > a for a, b in pairwise(numbers) if a != b]
        return sum(a != b for a, b in pairwise(signs))

    def line(self) -> str:
        return (
            f"{self.case.name:35s} {self.case.knee_per_s:6.2f} {100 * self.attainment:7.1f}"
            f" {self.replica_hours:8.2f} {self.replica_hours / max(1e-9, self.oracle_hours):8.2f}"
            f" {self.peak:5d} {len(self.changes):8d} {self.turns:6d} {self.lost:5d}"
        )


HEADER = (
    f"{'case':35s} {'knee/s':>6s} {'joint %':>7s} {'replica h':>8s} {'/oracle':>7s}"
    f" {'peak':>5s} {'changes':>8s} {'turns':>6s} {'lost':>5s}"
)


def simulate(case: Case, seed: int = 1, state: ScalingState | None = None) -> Report:
    """Run a case from its first replicas, all ready, to its end, then let requests finish."""
    chance = random.Random(seed)
    cluster = Cluster(case.hardware, random.Random(seed + 1))
    state = state or (warmed_up(case, seed) if case.warm else ScalingState())
    cluster.order(case.first_replicas, {})
    for engine in cluster.engines:
        engine.ready_s = engine.at_s = 0.0
    report = Report(case, cluster.requests, 0.0)
    for second in range(case.lasts_s):
        for arrived_s in _arrivals(chance, case.rate_per_s(second), second):
            prompt, output = (
                chance.randint(*case.prompt_tokens),
                chance.randint(*case.output_tokens),
            )
            cluster.arrive(Request(arrived_s, prompt, output))
        cluster.end_second(second + 1.0)
        cluster.scrape()
        woken = bool(cluster.held) and cluster.ordered == 0
        if woken or (second + 1) % LOOK_S == 0:
            state = _look(case, cluster, state, report)
    report.charged_s, report.state = cluster.charged_s, state
    for second in range(case.lasts_s, case.lasts_s + 300):
        cluster.end_second(second + 1.0)
    return report


def _look(case: Case, cluster: Cluster, state: ScalingState, report: Report) -> ScalingState:
    """Decide once, as the operator does, and note what changed."""
    load = load_of(cluster.replicas(), cluster.ordered, cluster.samples())
    decision = decide_replicas(case.rule, load, state, 1e9 + cluster.now_s)
    if decision.changed:
        because = f"{decision.reason}: {decision.because}"
        report.changes.append((cluster.now_s, decision.replicas, because))
    cluster.order(decision.replicas, dict(decision.deletion_costs))
    report.peak = max(report.peak, decision.replicas)
    return decision.state


def warmed_up(case: Case, seed: int) -> ScalingState:
    """Return what the law has learned from ten minutes at half the knee of one replica."""
    calm = Case(
        name="warm-up",
        hardware=case.hardware,
        rule=ScalingRule(
            min_replicas=1,
            max_replicas=1,
            time_to_first_token_s=case.rule.time_to_first_token_s,
            time_per_output_token_s=case.rule.time_per_output_token_s,
        ),
        rate_per_s=lambda t: case.knee_per_s * (0.3 + 0.6 * t / 600),
        lasts_s=600,
        prompt_tokens=case.prompt_tokens,
        output_tokens=case.output_tokens,
        knee_per_s=case.knee_per_s,
        warm=False,
    )
    return ScalingState(learned=simulate(calm, seed + 7).state.learned)


def _arrivals(chance: random.Random, rate_per_s: float, second: int) -> list[float]:
    """Draw the arrivals of one second."""
    times, at_s = [], float(second)
    while rate_per_s > 0:
        at_s += chance.expovariate(rate_per_s)
        if at_s >= second + 1:
            break
        times.append(at_s)
    return times
