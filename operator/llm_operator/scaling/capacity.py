"""The request rate that one replica carries within the targets, from its step law.

With n requests in it a step takes T(n) = fixed + share * n, where `share` is one output token and
the part of a prompt that comes with it. Every request then gets 1/T(n) tokens per second, so the
number in the replica is a birth-death process with p(n)/p(n-1) = A + B/n, A = rate * outputs *
share, B = rate * outputs * fixed: a negative binomial, whose mean and spread are known exactly.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from llm_operator.scaling.learned import Learned
from llm_operator.scaling.rule import ScalingRule
from llm_operator.scaling.step_law import StepLaw, fit

FULLEST: Final = 0.9
"""Nobody plans for a replica fuller than this: beyond, queues grow faster than models know."""

FULLEST_WITHOUT_TARGETS: Final = 0.8
LIFETIME_SPREAD: Final = 0.6
"""A request's mean time per token averages over its life: it feels this share of the spread."""


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
    share_s = _share_s(law, prompt, output)
    reachable = _holds(rule, predict(law, prompt, output, 0.0, rule.percentile), max_concurrency)
    has_target = rule.time_to_first_token_s or rule.time_per_output_token_s
    low, high = 0.0, FULLEST if has_target and reachable else FULLEST_WITHOUT_TARGETS
    if reachable and has_target:
        for _ in range(30):
            middle = (low + high) / 2
            rate_per_s = middle / (output * share_s)
            seen = predict(law, prompt, output, rate_per_s, rule.percentile)
            low, high = (middle, high) if _holds(rule, seen, max_concurrency) else (low, middle)
    rate_per_s = max(high, 1e-3) / (output * share_s)
    seen = predict(law, prompt, output, rate_per_s, rule.percentile)
    return Capacity(rate_per_s, seen.concurrency, reachable, law, prompt, output, assumed)


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


def _holds(rule: ScalingRule, seen: Prediction, max_concurrency: float | None) -> bool:
    """Tell whether a prediction is within the targets and within what an engine runs at once."""
    first_s, token_s = rule.time_to_first_token_s, rule.time_per_output_token_s
    if first_s is not None and seen.first_token_s > first_s:
        return False
    if token_s is not None and seen.per_token_s > token_s:
        return False
    return max_concurrency is None or seen.concurrency <= max(2.0, max_concurrency)
