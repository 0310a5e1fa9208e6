"""The request rate that one replica carries within the targets, from its step law.

With n requests in it a step takes T(n) = fixed + share * n, where `share` is one output token and
the part of a prompt that comes with it. Every request then gets 1/T(n) tokens per second, so the
number in the replica is a birth-death process with p(n)/p(n-1) = A + B/n, A = rate * outputs *
share, B = rate * outputs * fixed: a negative binomial, whose mean and spread are known exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from llm_operator.scaling.learned import Learned, Pool
from llm_operator.scaling.rule import ScalingRule
from llm_operator.scaling.step_law import StepLaw, fit

FULLEST: Final = 0.9
"""Nobody plans for a replica fuller than this: beyond, queues grow faster than models know."""

FULLEST_WITHOUT_TARGETS: Final = 0.8
LIFETIME_SPREAD: Final = 0.6
"""A request's mean time per token averages over its life: it feels this share of the spread."""

LEAST_BUSY: Final = 0.5
"""However strict the targets, a replica carries one request at a time for half of its time."""

BISECTIONS: Final = 30
ASSUMED_TOKENS: Final = 100.0
"""Length of prompts and answers until some have finished: an overload cannot wait for that."""


@dataclass(frozen=True)
class Capacity:
    """What one replica carries, and what that was computed from.

    requests_per_s  at which the percentiles still meet the targets
    concurrency     requests in the replica that the percentile sees at that rate
    reachable       False where even a request alone misses a target: replicas cannot help
    assumed         lengths are a guess, since too few requests have finished
    """

    requests_per_s: float
    concurrency: float
    reachable: bool
    law: StepLaw
    prompt_tokens: float
    output_tokens: float
    assumed: bool = False

    @property
    def share_s(self) -> float:
        """Seconds that one more request adds to each step."""
        return _share_s(self.law, self.prompt_tokens, self.output_tokens)


@dataclass(frozen=True)
class Prediction:
    """Percentiles at a request rate per replica."""

    concurrency: float
    first_token_s: float
    per_token_s: float


def capacity_of(
    rule: ScalingRule, learned: Learned, max_concurrency: float | None
) -> Capacity | None:
    """Return what one replica carries; None while it has not been seen at work.

    max_concurrency  requests that an engine runs at once; more would wait
    """
    law = fit(learned.pools)
    if law is None:
        return None
    assumed = learned.output_tokens is None or learned.prompt_tokens is None
    prompt = max(1.0, learned.prompt_tokens or ASSUMED_TOKENS)
    output = max(1.0, learned.output_tokens or ASSUMED_TOKENS)
    targets = _Targets(
        rule.time_to_first_token_s or math.inf, rule.time_per_output_token_s or math.inf
    )
    proven = _seen_nearly_alone(learned.pools)
    if not proven:
        law = _within_reach(law, learned.pools, targets)
    alone = predict(law, prompt, output, 0.0, rule.percentile)
    reachable = targets.hold(alone) or not proven
    if not targets.hold(alone):
        targets = targets.at_least_twice(alone)
    most = max(2.0, max_concurrency or math.inf)
    low, high = 0.0, FULLEST if targets.any else FULLEST_WITHOUT_TARGETS
    seen = alone
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        seen = predict(
            law, prompt, output, _rate_per_s(law, prompt, output, middle), rule.percentile
        )
        holds = targets.hold(seen) and seen.concurrency <= most
        low, high = (middle, high) if holds else (low, middle)
    one_at_a_time_per_s = 1 / (output * alone.per_token_s)
    rate_per_s = max(_rate_per_s(law, prompt, output, high), LEAST_BUSY * one_at_a_time_per_s)
    return Capacity(rate_per_s, seen.concurrency, reachable, law, prompt, output, assumed)


@dataclass(frozen=True)
class _Targets:
    """Seconds that the percentiles are to stay within; infinite where nothing is asked."""

    first_token_s: float
    per_token_s: float

    @property
    def any(self) -> bool:
        return min(self.first_token_s, self.per_token_s) < math.inf

    def hold(self, seen: "Prediction") -> bool:
        return seen.first_token_s <= self.first_token_s and seen.per_token_s <= self.per_token_s

    def at_least_twice(self, alone: "Prediction") -> "_Targets":
        """Where even a request alone misses a target, it may take twice as long in company."""
        first_s, token_s = self.first_token_s, self.per_token_s
        return _Targets(
            max(first_s, 2 * alone.first_token_s) if first_s < alone.first_token_s else first_s,
            max(token_s, 2 * alone.per_token_s) if token_s < alone.per_token_s else token_s,
        )


def _seen_nearly_alone(pools: Sequence[Pool]) -> bool:
    """Tell whether steps with one or two requests were measured, not only extrapolated to."""
    return sum(pool.step_s for pool in pools if pool.output_tokens <= 2.2 * pool.steps) >= 0.5


def _within_reach(law: StepLaw, pools: Sequence[Pool], targets: _Targets) -> StepLaw:
    """Return a law that explains the same mean step without putting a target out of reach.

    A replica that was only ever seen overloaded says little about a request alone: what is not
    known must not be a reason to stop growing.
    """
    most_s = min(targets.first_token_s / 4, targets.per_token_s) / 2
    if law.fixed_s <= most_s:
        return law
    steps = sum(pool.steps for pool in pools)
    requests = max(1.0, sum(pool.output_tokens for pool in pools) / steps)
    per_output_s = law.per_output_s + (law.fixed_s - most_s) / requests
    return StepLaw(most_s, per_output_s, law.per_prompt_s)


def _rate_per_s(law: StepLaw, prompt: float, output: float, full: float) -> float:
    """Return the requests per second that fill a replica to this share of its time."""
    return full / (output * _share_s(law, prompt, output))


def predict(
    law: StepLaw,
    prompt_tokens: float,
    output_tokens: float,
    rate_per_s: float,
    percentile: float,
) -> Prediction:
    """Return the percentiles at a rate per replica that is below its saturation.

    A first token takes the step under way, one more, and the prompt at the speed that is left.
    """
    share_s = _share_s(law, prompt_tokens, output_tokens)
    full = rate_per_s * output_tokens * share_s
    mean = (full + rate_per_s * output_tokens * law.fixed_s) / (1 - full)
    sigmas = NormalDist().inv_cdf(percentile / 100)
    spread = sigmas * math.sqrt(mean / (1 - full))
    typical_s = law.fixed_s + share_s * (1 + mean + LIFETIME_SPREAD * spread)
    worst_s = law.fixed_s + share_s * (1 + mean + spread)
    prompt_s = law.per_prompt_s * prompt_tokens
    prompts_met = rate_per_s * output_tokens * typical_s  # during the life of a request
    return Prediction(
        concurrency=1 + mean + spread,
        first_token_s=2 * worst_s + prompt_s / (1 - full),
        per_token_s=typical_s + sigmas * math.sqrt(prompts_met) * prompt_s / output_tokens,
    )


def _share_s(law: StepLaw, prompt_tokens: float, output_tokens: float) -> float:
    """Return the seconds that one more request adds to each step; never zero."""
    share_s = law.per_output_s + law.per_prompt_s * prompt_tokens / output_tokens
    return max(share_s, law.fixed_s / 1000, 1e-9)
