"""Loads, rules and a hand-stepped clock for stories about the scaling law."""

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from llm_operator.scaling import Load, ScalingDecision, ScalingRule, ScalingState, decide_replicas
from llm_operator.scaling.gaps import Gap
from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.learned import Learned, Pool
from llm_operator.scaling.load import WINDOWS_S, Arrivals

START_S = 1_700_000_000.0
LOOK_S = 5.0
BOUNDS_S = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


def a_rule(**changes: Any) -> ScalingRule:
    """Two seconds to the first token, 200 ms per token, 1 to 10 replicas, 60 s of patience."""
    rule = ScalingRule(
        min_replicas=1,
        max_replicas=10,
        time_to_first_token_s=2.0,
        time_per_output_token_s=0.2,
        stabilization_s=60.0,
        cold_start_s=30.0,
        price_per_h=Decimal("1.00"),
    )
    return replace(rule, **changes)


def pool(requests: float, prompt_tokens: float = 0.0, seconds: float = 10.0) -> Pool:
    """Return steps as an engine with 60 ms + 15 ms per request + 3 ms per prompt token takes."""
    step_s = 0.06 + 0.015 * requests + 0.003 * prompt_tokens
    steps = seconds / step_s
    return Pool(
        requests_octave=round(requests),
        prompt_octave=round(prompt_tokens),
        steps=steps,
        prompt_tokens=steps * prompt_tokens,
        output_tokens=steps * requests,
        step_s=seconds,
    )


LEARNED = Learned((pool(1), pool(4), pool(8), pool(4, 20)), prompt_tokens=40, output_tokens=40)
"""One replica carries about 0.6 requests/s within the targets of `a_rule`."""


def a_load(per_s: float = 0.0, ordered: int | None = 1, **changes: Any) -> Load:
    """Return a complete load at a rate that has been steady for a minute; all replicas ready."""
    ready = changes.pop("ready", ordered or 0)
    load = Load(
        ordered=ordered,
        ready=ready,
        starting=changes.pop("starting", (ordered or 0) - ready),
        arrivals=tuple(Arrivals(w, per_s * w, per_s) for w in WINDOWS_S),
        started_per_s=per_s if ready else 0.0,
        running=changes.pop("running", per_s * 3),
        emptiest_first=tuple(f"replica-{i}" for i in range(ordered or 0)),
        known=True,
    )
    return replace(load, **changes)


def seen(*values_s: float) -> Histogram:
    """Return a histogram of these observations."""
    counts = tuple(float(sum(v <= b for v in values_s)) for b in BOUNDS_S)
    return Histogram(BOUNDS_S, (*counts, float(len(values_s))), sum(values_s))


LOST = Gap("replica-0", "SamplesStale", "the last metrics of replica-0 are 30 s old")


class Story:
    """Steps the clock by hand; what is decided is done at once, and ready after `start_s`."""

    def __init__(self, rule: ScalingRule, ordered: int | None = 1, start_s: float = 30.0) -> None:
        self.rule, self.ordered = rule, ordered
        self.start_s = start_s
        self.now_s = START_S
        self.state = ScalingState(learned=LEARNED)
        self.born_s = [0.0] * (ordered or 0)
        self.decisions: list[ScalingDecision] = []

    def look(self, per_s: float = 0.0, **changes: Any) -> ScalingDecision:
        """Let LOOK_S go by and decide."""
        self.now_s += LOOK_S
        return self.look_now(per_s, **changes)

    def look_now(self, per_s: float = 0.0, **changes: Any) -> ScalingDecision:
        ready = sum(self.now_s - born_s >= self.start_s for born_s in self.born_s)
        load = a_load(per_s, self.ordered, **({"ready": ready} | changes))
        decision = decide_replicas(self.rule, load, self.state, self.now_s)
        self.state, self.ordered = decision.state, decision.replicas
        self.born_s = self.born_s[: decision.replicas]
        self.born_s += [self.now_s] * (decision.replicas - len(self.born_s))
        self.decisions.append(decision)
        return decision

    def go_on(self, seconds: float, per_s: float = 0.0, **changes: Any) -> list[int]:
        """Look again and again for so long; return the numbers of replicas."""
        looks = round(seconds / LOOK_S)
        return [self.look(per_s, **changes).replicas for _ in range(looks)]

    @property
    def turns(self) -> int:
        """Changes of direction so far."""
        moves = [d.replicas - (d.ordered or 0) for d in self.decisions if d.changed]
        return sum((a > 0) != (b > 0) for a, b in pairwise(moves))
