"""What users are told: are the metrics there, are the targets met, does the money suffice?"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from llm_operator.api.deployment_status import Observed
from llm_operator.scaling.capacity import Capacity
from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.load import Load
from llm_operator.scaling.rounding import in_words, rounded
from llm_operator.scaling.rule import ScalingRule

NAMED_GAPS: Final = 3


@dataclass(frozen=True)
class Finding:
    """A condition: whether it holds (None: unknown), why in one word, and what to know or do."""

    holds: bool | None
    reason: str
    message: str


def metrics_available(load: Load) -> Finding:
    """Say whether every ready replica and every gateway has trustworthy metrics."""
    lost = [gap for gap in load.gaps if gap.lost]
    if lost:
        named = "; ".join(gap.message for gap in lost[:NAMED_GAPS])
        more = f"; and {len(lost) - NAMED_GAPS} more" if len(lost) > NAMED_GAPS else ""
        return Finding(False, lost[0].reason, f"no replica is taken away meanwhile: {named}{more}")
    if not load.known:
        return Finding(None, "NotYetScraped", "no metrics have been read yet")
    return Finding(True, "Complete", "metrics of every ready replica and every gateway are fresh")


def targets_met(rule: ScalingRule, load: Load, capacity: Capacity | None) -> Finding:
    """Say whether the requests of the last minute met the targets, and by how much not."""
    asked = [
        (load.seen_first_token, rule.time_to_first_token_s, "to the first token"),
        (load.seen_per_token, rule.time_per_output_token_s, "per output token"),
    ]
    said, missed = [], False
    for seen, target_s, what in asked:
        value_s = seen.percentile(rule.percentile) if seen is not None else None
        if target_s is None or value_s is None:
            continue
        missed = missed or value_s > target_s
        said.append(f"{in_words(value_s)} {what} (target {in_words(target_s)})")
    if rule.time_to_first_token_s is None and rule.time_per_output_token_s is None:
        return Finding(True, "NoTargets", "no target is set")
    if not said:
        return Finding(None, "NoTraffic", "no request finished within the last minute")
    message = f"{rule.percentile:g} % of requests took at most {' and '.join(said)}"
    if not missed:
        return Finding(True, "Met", message)
    if capacity is not None and not capacity.reachable:
        alone_s = capacity.law.fixed_s + capacity.share_s
        return Finding(
            False,
            "OutOfReach",
            f"{message}; a request alone in a replica already takes {in_words(alone_s)} per token:"
            " more replicas cannot help, faster hardware or a smaller model can",
        )
    return Finding(False, "Missed", message)


def within_budget(rule: ScalingRule, load: Load, replicas: int, wanted: int) -> Finding:
    """Say whether what exists is paid for, and by how much the budget binds.

    replicas  to run now
    wanted    by the load, were there no budget
    """
    budget, price = rule.budget_per_h, rule.price_per_h
    if budget is None:
        return Finding(True, "NoBudget", "targets.maxCostPerHour is not set")
    if price is None:
        return Finding(None, "PriceUnknown", "the price of a replica is not known")
    cost = charged_per_h(rule, load, replicas) or Decimal(0)
    short = min(wanted, rule.max_replicas) - (rule.affordable or 0)
    if cost > budget:
        return Finding(
            False,
            "OverBudget",
            f"{load.existing} replicas cost {cost:.2f} per hour, {cost - budget:.2f} more than"
            f" maxCostPerHour {budget:.2f}, until those that are stopping are gone",
        )
    if price > 0 and short > 0:
        return Finding(
            True,
            "BudgetBinds",
            f"maxCostPerHour {budget:.2f} pays for {rule.affordable} replicas at {price:.2f};"
            f" the load wants {short} more: raise it by {short * price:.2f} to meet the targets",
        )
    return Finding(True, "WithinBudget", f"{cost:.2f} of {budget:.2f} per hour")


def charged_per_h(rule: ScalingRule, load: Load, replicas: int) -> Decimal | None:
    """Return what is paid per hour: from the order of a replica until its pod is gone."""
    if rule.price_per_h is None:
        return None
    staying = max(load.ready + load.starting, replicas)
    return rule.price_per_h * (staying + load.terminating)


def observed(rule: ScalingRule, load: Load, replicas: int) -> Observed:
    """Return what the status shows of the last minute, rounded; None where nothing is known."""
    first, token = load.seen_first_token, load.seen_per_token
    return Observed(
        time_to_first_token_s=_percentile(first, rule.percentile),
        time_per_output_token_s=_percentile(token, rule.percentile),
        requests_per_s=rounded(load.minute_per_s) if load.known else None,
        output_tokens_per_s=rounded(load.output_tokens_per_s) if load.known else None,
        attainment=_attainment(rule, load),
        cost_per_h=charged_per_h(rule, load, replicas),
        held_requests=round(load.held) if load.known else None,
        running_requests=round(load.running) if load.known else None,
        waiting_requests=round(load.waiting) if load.known else None,
    )


def _percentile(seen: Histogram | None, percentile: float) -> float | None:
    return rounded(seen.percentile(percentile)) if seen is not None else None


def _attainment(rule: ScalingRule, load: Load) -> float | None:
    """Return the worse of the two shares of requests within a target: the most that both can be."""
    shares = [
        seen.share_within(target_s)
        for seen, target_s in (
            (load.seen_first_token, rule.time_to_first_token_s),
            (load.seen_per_token, rule.time_per_output_token_s),
        )
        if seen is not None and target_s is not None
    ]
    known = [share for share in shares if share is not None]
    return rounded(min(known)) if known else None
