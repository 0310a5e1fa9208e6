"""The decision: how many replicas to run now, and why.

Grows at once. Shrinks by a step only where fewer would have sufficed, with a margin, all through
the stabilization time, and only on complete data. Bounds and budget hold even without data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from llm_operator.api.deployment_status import Observed
from llm_operator.scaling import findings
from llm_operator.scaling.capacity import Capacity, capacity_of
from llm_operator.scaling.demand import Demand, demand_of
from llm_operator.scaling.findings import Finding
from llm_operator.scaling.learned import learn
from llm_operator.scaling.load import GUARD_S, Load
from llm_operator.scaling.rounding import in_words, rounded
from llm_operator.scaling.rule import ScalingRule
from llm_operator.scaling.state import ScalingState

MOST_GROWTH: Final = 4
"""One decision at most doubles the replicas, or adds this many."""

LEAST_STEP_GAP_S: Final = 10.0
STEP_GAP_SHARE: Final = 0.25
"""Two steps down are apart by this share of the stabilization time: the rest is seen to hold."""

Inputs = Mapping[str, float | int | str]


@dataclass(frozen=True)
class ScalingDecision:
    """What to run, why, and what to remember; `docs/scaling.md` lists every reason.

    deletion_costs  of the pods, only where replicas go: lowest first, so the emptiest goes
    """

    replicas: int
    ordered: int | None
    state: ScalingState
    reason: str
    because: str
    inputs: Inputs
    metrics_available: Finding
    targets_met: Finding
    within_budget: Finding
    observed: Observed
    deletion_costs: Mapping[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether this is another number than the one ordered."""
        return self.replicas != self.ordered


@dataclass(frozen=True)
class Choice:
    """A number of replicas with its reason."""

    replicas: int
    reason: str
    because: str


def decide_replicas(
    rule: ScalingRule, load: Load, state: ScalingState, now_s: float
) -> ScalingDecision:
    """Return the replicas to run at `now_s` (Unix seconds), and the state for the next look."""
    state, watched_s = state.looked_at(now_s)
    state = _noticed(state, load, now_s, watched_s)
    capacity = capacity_of(rule, state.learned, load.max_concurrency)
    idle_s = now_s - (state.active_at_s or now_s)
    demand = demand_of(
        rule,
        load,
        capacity,
        settled=now_s - (state.ready_at_s or now_s) >= GUARD_S,
        idle=rule.min_replicas == 0 and load.complete and idle_s >= rule.idle_after_s,
    )
    keep = demand.keep if watched_s is not None else max(demand.keep, load.ordered or 0)
    if load.ordered is not None or not state.wants:
        remembered_s = 0.0 if demand.reason == "Idle" else rule.stabilization_s
        state = state.wanting(keep, now_s, remembered_s)
    choice = _choose(rule, load, state, demand, now_s)
    return _decision(rule, load, state, capacity, demand, choice)


def _noticed(
    state: ScalingState, load: Load, now_s: float, watched_s: float | None
) -> ScalingState:
    """Take in what is new: work and lengths, use of the model, a change of replicas."""
    if load.active or state.active_at_s is None:
        state = replace(state, active_at_s=now_s)
    if load.ready != state.ready or state.ready_at_s is None:
        state = replace(state, ready=load.ready, ready_at_s=now_s)
    if load.ordered is not None:
        shrunk = state.ordered is not None and load.ordered < state.ordered
        shrunk_at_s = now_s if shrunk else state.shrunk_at_s
        state = replace(state, ordered=load.ordered, shrunk_at_s=shrunk_at_s)
    return replace(state, learned=learn(state.learned, load, watched_s or 0.0))


def _choose(
    rule: ScalingRule, load: Load, state: ScalingState, demand: Demand, now_s: float
) -> Choice:
    """Choose between bounds, growing, shrinking and standing still, in this order."""
    ordered = load.ordered
    if ordered is None:
        first = max(demand.grow_to, state.most_wanted or 0, rule.floor)
        return Choice(min(first, rule.ceiling), "FirstReplicas", "nothing runs yet")
    if ordered > rule.ceiling:
        return _above_ceiling(rule, ordered)
    if max(demand.grow_to, rule.floor) > ordered:
        return _grow(rule, load, ordered, demand)
    if max(state.most_wanted or 0, rule.floor) < ordered:
        return _shrink(rule, load, state, demand, now_s)
    return _stand(rule, load, demand)


def _above_ceiling(rule: ScalingRule, ordered: int) -> Choice:
    """Obey a bound that was lowered: that needs no metrics."""
    if rule.ceiling < rule.max_replicas:
        said = f"maxCostPerHour {rule.budget_per_h} pays for {rule.ceiling} of {ordered} replicas"
        return Choice(rule.ceiling, "BudgetLimit", said)
    return Choice(rule.ceiling, "AboveMaximum", f"maxReplicas is {rule.ceiling}")


def _grow(rule: ScalingRule, load: Load, ordered: int, demand: Demand) -> Choice:
    """Grow to what is needed, as far as bounds and money allow."""
    if demand.grow_to <= ordered:
        return Choice(rule.floor, "BelowMinimum", f"minReplicas is {rule.floor}")
    wanted = max(demand.grow_to, rule.floor)
    most = max(2 * ordered, ordered + MOST_GROWTH)
    paid = rule.ceiling
    if rule.affordable is not None:  # a pod that is stopping still costs
        paid = min(paid, max(ordered, rule.affordable - load.terminating))
    replicas = min(wanted, most, paid)
    because = f"{demand.because}: that takes {_replicas(demand.grow_to)}"
    if replicas == ordered:
        return _bounded(rule, replicas, because)
    if replicas < wanted:
        because += f"; {replicas} for now"
    reason = "DemandAboveCapacity" if demand.reason == "Demand" else demand.reason
    return Choice(replicas, reason, because)


def _bounded(rule: ScalingRule, replicas: int, because: str) -> Choice:
    """Stay where a bound forbids to grow."""
    if rule.affordable is not None and replicas >= min(rule.affordable, rule.max_replicas):
        if rule.affordable < rule.max_replicas:
            return Choice(replicas, "AtBudget", f"{because}; the budget allows {replicas}")
    elif replicas < rule.ceiling:
        return Choice(replicas, "AtBudget", f"{because}; those that are stopping still cost")
    return Choice(replicas, "AtMaximum", f"{because}; maxReplicas is {rule.max_replicas}")


def _shrink(
    rule: ScalingRule, load: Load, state: ScalingState, demand: Demand, now_s: float
) -> Choice:
    """Take one step down, unless data are missing or the last step was only just taken."""
    ordered, enough = load.ordered or 0, max(state.most_wanted or 0, rule.floor)
    if not load.complete:
        return Choice(ordered, "MetricsIncomplete", _incomplete_in_words(load))
    if demand.reason == "Idle":
        return Choice(enough, "Idle", demand.because)
    gap_s = max(LEAST_STEP_GAP_S, STEP_GAP_SHARE * rule.stabilization_s)
    if state.shrunk_at_s is not None and now_s - state.shrunk_at_s < gap_s:
        said = f"the last replica went less than {in_words(gap_s)} ago"
        return Choice(ordered, "Stabilizing", f"{_replicas(enough)} would do; {said}")
    return Choice(
        max(enough, ordered - rule.max_step),
        "DemandBelowCapacity",
        f"{demand.because}; {_replicas(enough)} would have done"
        f" for {in_words(rule.stabilization_s)}",
    )


def _stand(rule: ScalingRule, load: Load, demand: Demand) -> Choice:
    """Stay, and say whether by need, by lack of data or by patience."""
    ordered = load.ordered or 0
    if not load.complete and ordered > rule.floor:
        return Choice(ordered, "MetricsIncomplete", _incomplete_in_words(load))
    if max(demand.keep, rule.floor) < ordered:
        fewer = _replicas(max(demand.keep, rule.floor))
        said = f"{demand.because}; {fewer} would do, if so for {in_words(rule.stabilization_s)}"
        return Choice(ordered, "Stabilizing", said)
    return Choice(ordered, "Steady", demand.because)


def _incomplete_in_words(load: Load) -> str:
    named = "; ".join(gap.message for gap in load.gaps[: findings.NAMED_GAPS])
    return f"no replica goes without complete metrics: {named}"


def _replicas(count: int) -> str:
    return f"{count} replica" if count == 1 else f"{count} replicas"


def _decision(
    rule: ScalingRule,
    load: Load,
    state: ScalingState,
    capacity: Capacity | None,
    demand: Demand,
    choice: Choice,
) -> ScalingDecision:
    """Put the decision together with what users are told."""
    shrinks = load.ordered is not None and choice.replicas < load.ordered
    return ScalingDecision(
        replicas=choice.replicas,
        ordered=load.ordered,
        state=state,
        reason=choice.reason,
        because=choice.because,
        inputs=_inputs(load, capacity, demand, state),
        metrics_available=findings.metrics_available(load),
        targets_met=findings.targets_met(rule, load, capacity),
        within_budget=findings.within_budget(
            rule, load, choice.replicas, max(demand.grow_to, rule.min_replicas)
        ),
        observed=findings.observed(rule, load, choice.replicas),
        deletion_costs=(
            {name: rank for rank, name in enumerate(load.emptiest_first)} if shrinks else {}
        ),
    )


def _inputs(load: Load, capacity: Capacity | None, demand: Demand, state: ScalingState) -> Inputs:
    """Return the numbers that the decision was taken from, rounded."""
    inputs: dict[str, float | int | str] = {
        "requestsPerSecond": rounded(demand.requests_per_s),
        "held": round(load.held),
        "running": round(load.running),
        "waiting": round(load.waiting),
        "ready": load.ready,
        "starting": load.starting,
        "terminating": load.terminating,
        "neededNow": demand.grow_to,
        "enough": state.most_wanted or 0,
        "gaps": len(load.gaps),
    }
    if capacity is not None:
        inputs |= {
            "requestsPerSecondPerReplica": rounded(capacity.requests_per_s),
            "stepSeconds": rounded(capacity.law.fixed_s),
            "stepSecondsPerRequest": rounded(capacity.share_s),
            "promptTokens": rounded(capacity.prompt_tokens),
            "outputTokens": rounded(capacity.output_tokens),
        }
    return inputs
