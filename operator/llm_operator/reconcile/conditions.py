"""The eight conditions, each judged from the same facts; `Ready` needs a replica that answers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from llm_operator.api.deployment_status import Condition, ConditionStatus, ConditionType
from llm_operator.reconcile.inspection import InspectionState
from llm_operator.reconcile.pods import Pod
from llm_operator.reconcile.trouble import Trouble
from llm_operator.scaling import Finding, ScalingDecision

Json: TypeAlias = dict[str, Any]

OUT_OF_REACH: Final = "OutOfReach"
"""The scaling law's word for targets that no number of replicas can meet on this hardware."""


@dataclass(frozen=True)
class Facts:
    """What conditions are judged from.

    refused     why the spec cannot be acted on at all
    conflict    why the served name is not ours
    manual      the user owns the number of replicas
    inspection  None: not got so far
    unplanned   why no hardware was chosen, although the model is known
    engine      the raw Deployment of the replicas; None: there is none
    replicas    pods of the replicas that are not being deleted
    wanted      replicas that there should be; None: not decided
    over_price  why even one replica breaks the budget
    """

    refused: Trouble | None = None
    conflict: Trouble | None = None
    paused: bool = False
    manual: bool = False
    obstacle: Trouble | None = None
    inspection: InspectionState | None = None
    unplanned: Trouble | None = None
    engine: Json | None = None
    replicas: tuple[Pod, ...] = ()
    wanted: int | None = None
    scaled: ScalingDecision | None = None
    over_price: str | None = None

    @property
    def ready(self) -> int:
        """Replicas that answer."""
        return sum(replica.ready for replica in self.replicas)

    @property
    def inspecting(self) -> bool:
        """The model of the newest spec is not known yet."""
        return self.inspection is not None and self.inspection.pending

    @property
    def hindrance(self) -> Trouble | None:
        """What keeps the newest spec from being served, the earliest cause first."""
        inspection = self.inspection.trouble if self.inspection else None
        return (
            self.refused
            or self.conflict
            or self.obstacle
            or inspection
            or self.unplanned
            or self._replica_trouble()
            or self._deployment_trouble()
        )

    def _replica_trouble(self) -> Trouble | None:
        newest_first = sorted(self.replicas, key=lambda pod: pod.created_s or 0, reverse=True)
        return next((p.trouble for p in newest_first if p.trouble and not p.ready), None)

    def _deployment_trouble(self) -> Trouble | None:
        seen = _engine_conditions(self.engine)
        failure = seen.get("ReplicaFailure") or {}
        if failure.get("status") == "True":
            return Trouble("PodsForbidden", str(failure.get("message") or "no pod may be created"))
        progress = seen.get("Progressing") or {}
        if progress.get("reason") == "ProgressDeadlineExceeded" and self.wanted:
            return Trouble("DeadlineExceeded", str(progress.get("message") or "no progress"))
        return None


def judge(facts: Facts) -> dict[ConditionType, Finding]:
    """Return a finding for every condition."""
    return {kind: rule(facts) for kind, rule in _RULES.items()}


def dated(
    findings: dict[ConditionType, Finding],
    before: list[Condition],
    generation: int,
    now_s: float,
) -> list[Condition]:
    """Return the findings as conditions; a status that stays keeps the time it came."""
    old = {condition.type: condition for condition in before}
    now = datetime.fromtimestamp(now_s, UTC)
    conditions = []
    for kind, finding in findings.items():
        status = _STATUS[finding.holds]
        last = old.get(kind.value)
        stays = last is not None and last.status is status
        conditions.append(
            Condition(
                type=kind.value,
                status=status,
                reason=finding.reason,
                message=finding.message,
                last_transition_time=last.last_transition_time if last and stays else now,
                observed_generation=generation,
            )
        )
    return conditions


def _ready(facts: Facts) -> Finding:
    if facts.refused or facts.conflict:
        return _no(facts.refused or facts.conflict)
    if facts.ready:
        return Finding(True, "Serving", _answering(facts))
    if facts.hindrance:
        return _no(facts.hindrance)
    if facts.wanted == 0 and facts.engine:
        return _none_wanted(facts)
    return Finding(False, *_stage(facts))


def _accepted(facts: Facts) -> Finding:
    trouble = facts.refused or facts.conflict
    return _no(trouble) if trouble else Finding(True, "Accepted", "The spec can be acted on.")


def _targets_achievable(facts: Facts) -> Finding:
    if facts.over_price:
        return Finding(False, "OverBudget", facts.over_price)
    if facts.unplanned:
        return _no(facts.unplanned)
    measured = facts.scaled.targets_met if facts.scaled else None
    if measured and measured.reason == OUT_OF_REACH:
        return measured
    if measured and measured.holds:
        return Finding(True, "Measured", "The targets hold as measured.")
    return Finding(None, "NotMeasured", "Known as soon as the targets have held under load.")


def _available(facts: Facts) -> Finding:
    if facts.wanted is None:
        return Finding(False, "NoReplicas", "No replica has been asked for yet.")
    if facts.wanted == 0:
        return _none_wanted(facts)
    if facts.ready >= facts.wanted:
        return Finding(True, "AllReplicasReady", _answering(facts))
    if facts.hindrance:
        return _no(facts.hindrance)
    return Finding(False, "ReplicasNotReady", _answering(facts))


def _progressing(facts: Facts) -> Finding:
    if facts.paused:
        return Finding(False, "Paused", "Paused by annotation; remove it to go on.")
    if facts.hindrance:
        return _no(facts.hindrance)
    if facts.inspecting or facts.wanted is None or facts.engine is None:
        return Finding(True, *_stage(facts))
    status = facts.engine.get("status") or {}
    updated = status.get("updatedReplicas") or 0
    exist = status.get("replicas") or 0
    if updated < facts.wanted or facts.ready < facts.wanted:
        return Finding(True, *_stage(facts))
    if exist > facts.wanted:
        return Finding(True, "Stopping", "Replicas finish their requests before they stop.")
    return Finding(False, "Settled", "All is as the spec asks.")


def _measured(
    pick: Callable[[ScalingDecision], Finding],
) -> Callable[[Facts], Finding]:
    def rule(facts: Facts) -> Finding:
        if facts.scaled is None:
            return Finding(None, "NotServing", "Known once replicas are under control.")
        return pick(facts.scaled)

    return rule


def _stage(facts: Facts) -> tuple[str, str]:
    """Return reason and message of what is under way while all goes as it should."""
    if facts.paused:
        return "Paused", "Paused by annotation; remove it to go on."
    if facts.inspecting:
        return "Inspecting", "Reading the model's configuration and weight headers."
    starting = [replica for replica in facts.replicas if not replica.ready]
    if not starting:
        return "Starting", "Waiting for Kubernetes to create the pods of the replicas."
    if any(replica.started_s for replica in starting):
        return "Loading", f"Replicas are loading the model: {_names(starting)}."
    if any(replica.scheduled_s for replica in starting):
        return "Pulling", f"The image is being pulled for: {_names(starting)}."
    return "Scheduling", f"Waiting for a node for: {_names(starting)}."


def _names(replicas: list[Pod]) -> str:
    shown = sorted(replica.name for replica in replicas)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _answering(facts: Facts) -> str:
    wanted = facts.ready if facts.wanted is None else facts.wanted
    return f"Replicas that answer: {facts.ready} of {wanted}."


def _none_wanted(facts: Facts) -> Finding:
    if facts.manual:
        return Finding(False, "ScaledToZero", "spec.replicas is 0: raise it to serve.")
    said = "No replica runs because nobody asks; the next request wakes one."
    return Finding(False, "Idle", said)


def _no(trouble: Trouble | None) -> Finding:
    assert trouble is not None
    return Finding(False, trouble.reason, trouble.message)


def _engine_conditions(engine: Json | None) -> dict[str, Json]:
    conditions = ((engine or {}).get("status") or {}).get("conditions") or ()
    return {condition.get("type"): condition for condition in conditions}


_STATUS: Final = {
    True: ConditionStatus.TRUE,
    False: ConditionStatus.FALSE,
    None: ConditionStatus.UNKNOWN,
}
_RULES: Final[dict[ConditionType, Callable[[Facts], Finding]]] = {
    ConditionType.READY: _ready,
    ConditionType.ACCEPTED: _accepted,
    ConditionType.TARGETS_ACHIEVABLE: _targets_achievable,
    ConditionType.AVAILABLE: _available,
    ConditionType.PROGRESSING: _progressing,
    ConditionType.METRICS_AVAILABLE: _measured(lambda scaled: scaled.metrics_available),
    ConditionType.TARGETS_MET: _measured(lambda scaled: scaled.targets_met),
    ConditionType.WITHIN_BUDGET: _measured(lambda scaled: scaled.within_budget),
}
