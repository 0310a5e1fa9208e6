"""How many replicas the load asks for: by demand and capacity, and by what was measured.

Two numbers come out. `grow_to` is needed now. `keep` is what must not be gone below: it has a
margin on top, so that what was taken away is not wanted back at once.
"""

import math
from dataclasses import dataclass
from typing import Final

from llm_operator.scaling.capacity import Capacity
from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.load import Load
from llm_operator.scaling.rounding import in_words, rounded
from llm_operator.scaling.rule import ScalingRule

KEEP_MARGIN: Final = 1.15
SHORT_WINDOW_SIGMAS: Final = 1.5
MISS_SIGMAS: Final = 2.0
LEAST_DRAIN_S: Final = 30.0
MOST_RATIO: Final = 2.0
MOST_GUESSED: Final = 4
"""A guess at the length of answers may ask for no more than so many times what is ready."""

STARTING_COUNTS: Final = 0.5
FEWEST_TOKENS: Final = 20
STILL_NEAR: Final = 0.7
ROUNDING: Final = 0.02
"""A want for 3.02 replicas is a want for 3."""


@dataclass(frozen=True)
class Demand:
    """Replicas that are asked for, and why, in a reason and a sentence."""

    grow_to: int
    keep: int
    requests_per_s: float
    reason: str
    because: str


def demand_of(
    rule: ScalingRule, load: Load, capacity: Capacity | None, settled: bool, idle: bool
) -> Demand:
    """Return the replicas that the load asks for, bounds and budget left aside.

    settled  no replica became ready or went within the last 30 s, so that what was measured is
             the work of those that are there now
    idle     nobody used the model for so long that its last replica may go
    """
    ordered = load.ordered or 0
    rate_per_s = arrival_rate_per_s(load)
    if idle:
        said = f"no request for {in_words(rule.idle_after_s)}"
        return Demand(0, 0, rate_per_s, "Idle", said)
    by_load = _by_load(rule, load, capacity, rate_per_s)
    by_truth, missed = _by_truth(rule, load, capacity, settled)
    in_use = 1 if load.active else 0
    grow_to = max(by_load, by_truth, in_use)
    keep = max(grow_to, 1)
    if not load.complete or (missed and capacity is not None and capacity.reachable):
        keep = max(keep, ordered)
    elif capacity is None or capacity.assumed:
        keep = max(keep, ordered if load.active or rate_per_s > 0 else 1)
    else:
        keep = max(keep, _by_load(rule, load, capacity, rate_per_s * KEEP_MARGIN))
    if by_truth > max(by_load, in_use):
        return Demand(grow_to, keep, rate_per_s, "TargetsMissed", missed)
    if load.held > 0 and load.ready == 0:
        held = f"{load.held:g} requests are held at the gateways and no replica is ready"
        return Demand(grow_to, keep, rate_per_s, "RequestsHeld", held)
    return Demand(grow_to, keep, rate_per_s, "Demand", _demand_in_words(load, capacity, rate_per_s))


def arrival_rate_per_s(load: Load) -> float:
    """Return the requests per second to provide for.

    The rate of the last minute, or of a shorter window where that is surely higher: of k arrivals
    in a short window only k - 1.5 * sqrt(k) count.
    """
    sure = [
        seen.per_s * max(0.0, 1 - SHORT_WINDOW_SIGMAS / math.sqrt(seen.count))
        for seen in load.arrivals[:-1]
        if seen.count > 0
    ]
    return max(load.minute_per_s, *sure, 0.0)


def backlog_of(load: Load, capacity: Capacity) -> float:
    """Return the requests that have come and that nobody serves at speed."""
    slots = capacity.concurrency * load.ready
    return load.held + load.waiting + max(0.0, load.running - slots)


def _by_load(rule: ScalingRule, load: Load, capacity: Capacity | None, rate_per_s: float) -> int:
    """Return the replicas that carry the rate and work off the backlog; 0 while unknown."""
    if capacity is None:
        return 0
    by_rate = rate_per_s / capacity.requests_per_s
    drain_s = max(LEAST_DRAIN_S, rule.cold_start_s)
    by_backlog = backlog_of(load, capacity) / (capacity.requests_per_s * drain_s)
    on_their_way = STARTING_COUNTS * load.starting
    needed = math.ceil(by_rate + max(0.0, by_backlog - on_their_way) - ROUNDING)
    return min(needed, MOST_GUESSED * max(1, load.ready)) if capacity.assumed else needed


def _by_truth(
    rule: ScalingRule, load: Load, capacity: Capacity | None, settled: bool
) -> tuple[int, str]:
    """Return the replicas that the measured misses ask for, and what was missed.

    Replicas on their way count as half there: it grows by what is still missing, and stops.
    """
    ratio, missed = _worst_miss(rule, load)
    reachable = capacity is None or capacity.reachable
    if not missed or not settled or not reachable or load.ready == 0:
        return 0, missed
    needed = load.ready * min(ratio, MOST_RATIO)
    short = needed - (load.ready + STARTING_COUNTS * load.starting)
    more = math.ceil(short) if load.starting == 0 else math.floor(short)
    return (load.ready + load.starting + more if more > 0 else 0), missed


def _worst_miss(rule: ScalingRule, load: Load) -> tuple[float, str]:
    """Return measured / target of the target missed most, with a sentence; (1, "") for none.

    A request that ended just now may have suffered long ago: a miss counts only while the last
    seconds show that it goes on.
    """
    misses = [(1.0, "")]
    first_s, token_s = rule.time_to_first_token_s, rule.time_per_output_token_s
    first, token = load.recent_first_token, load.recent_inter_token
    misses = [(1.0, "")]
    if first_s is not None and _near(first.percentile(rule.percentile) if first else None, first_s):
        misses.append(_miss(rule.percentile, load.guard_first_token, first_s, "to the first token"))
    if token_s is not None and _near(token.mean if token else None, token_s):
        misses.append(_miss(rule.percentile, load.guard_per_token, token_s, "per output token"))
    if token_s is not None and token is not None and token.count >= FEWEST_TOKENS:
        mean_s = token.mean or 0.0
        if mean_s > token_s:
            said = f"tokens now come every {in_words(mean_s)}, the target is {in_words(token_s)}"
            misses.append((mean_s / token_s, said))
    return max(misses)


def _near(now_s: float | None, target_s: float) -> bool:
    """Tell whether the last seconds are near a target or beyond it; unknown counts as yes."""
    return now_s is None or now_s >= STILL_NEAR * target_s


def _miss(
    percentile: float, seen: Histogram | None, target_s: float, what: str
) -> tuple[float, str]:
    """Return measured / target and a sentence if more requests missed than chance explains."""
    if seen is None or seen.count <= 0:
        return 1.0, ""
    within, value_s = seen.share_within(target_s) or 0.0, seen.percentile(percentile) or 0.0
    allowed = 1 - percentile / 100
    chance = MISS_SIGMAS * math.sqrt(allowed * (1 - allowed) * seen.count)
    if (1 - within) * seen.count <= allowed * seen.count + chance or value_s <= target_s:
        return 1.0, ""
    return value_s / target_s, (
        f"{percentile:g} % of the last {seen.count:.0f} requests took up to {in_words(value_s)}"
        f" {what}, the target is {in_words(target_s)}"
    )


def _demand_in_words(load: Load, capacity: Capacity | None, rate_per_s: float) -> str:
    """Say what arrives and what one replica carries."""
    arrives = f"{rounded(rate_per_s):g} requests/s arrive"
    if load.held:
        arrives += f" and {load.held:g} are held"
    if capacity is None:
        return f"{arrives}; what one replica carries is not known yet"
    backlog = backlog_of(load, capacity)
    length = f"{'is taken to have' if capacity.assumed else 'has'} {capacity.output_tokens:.0f}"
    if backlog >= 1:
        arrives += f", {backlog:.0f} have piled up"
    return (
        f"{arrives}; one replica carries {rounded(capacity.requests_per_s):g}/s"
        f" (a step takes {in_words(capacity.law.fixed_s)}, and {in_words(capacity.share_s)} more"
        f" for each request in it; an answer {length} tokens)"
    )
