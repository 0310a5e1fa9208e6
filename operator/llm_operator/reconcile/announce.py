"""Which Events follow from a step: what turned, judged by the status before and after.

The status before is what was last written, so a turn is told once, whoever leads at the time.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from llm_engine.contract.quantization import Quantization
from llm_operator.api.deployment_status import (
    Condition,
    ConditionStatus,
    ConditionType,
    LLMDeploymentStatus,
)
from llm_operator.reconcile.decision import Action, Apply
from llm_operator.reconcile.drift import APPLIED_ANNOTATION
from llm_operator.reconcile.notes import Note, NoteReason

# Conditions whose turn to False is worth an Event. A first status that is False because all has
# only begun (Starting, Inspecting ...) is not.
_WARN: Final = {
    ConditionType.ACCEPTED: NoteReason.NOT_ACCEPTED,
    ConditionType.READY: NoteReason.NOT_READY,
    ConditionType.PROGRESSING: NoteReason.NOT_PROGRESSING,
    ConditionType.METRICS_AVAILABLE: NoteReason.METRICS_UNAVAILABLE,
    ConditionType.TARGETS_MET: NoteReason.TARGETS_MISSED,
    ConditionType.WITHIN_BUDGET: NoteReason.OVER_BUDGET,
}
_HARMLESS: Final = frozenset(
    {
        "Starting", "Inspecting", "Scheduling", "Pulling", "Loading", "Stopping",
        "Idle", "ScaledToZero", "Paused", "Settled",
    }
)  # fmt: skip
_WEIGHTS: Final = {Quantization.NONE: "unquantized"}


def announce(before: LLMDeploymentStatus, after: LLMDeploymentStatus) -> tuple[Note, ...]:
    """Return the notes on what turned between two statuses."""
    return (*_conditions(before, after), *_progress(before, after), *_decisions(before, after))


def repaired(
    before: LLMDeploymentStatus, actions: Iterable[Action], generation: int
) -> tuple[Note, ...]:
    """Return a note for every child that somebody else has changed or deleted.

    An object that was never applied for this spec is being created, not repaired.
    """
    settled = before.observed_generation == generation and before.plan is not None
    notes = []
    for action in actions:
        if not isinstance(action, Apply) or action.manifest["kind"] == "Job":
            continue
        what = f"{action.manifest['kind']} {action.manifest['metadata']['name']}"
        if action.over is None and settled:
            notes.append(Note(NoteReason.REPAIRED, f"{what} was deleted; it is made again."))
        elif action.over is not None and _signature(action.over) == _signature(action.manifest):
            notes.append(Note(NoteReason.REPAIRED, f"{what} was changed; it is put back."))
    return tuple(notes)


def _conditions(before: LLMDeploymentStatus, after: LLMDeploymentStatus) -> Iterator[Note]:
    old = {condition.type: condition for condition in before.conditions}
    new = {condition.type: condition for condition in after.conditions}
    told: set[str] = set()
    for kind, reason in _WARN.items():
        now = new[kind.value]
        if _turned_bad(old.get(kind.value), now) and now.message not in told:
            told.add(now.message)  # one cause shows in several conditions and is told once
            yield Note(reason, f"{now.reason}: {now.message}")
    ready, was = new[ConditionType.READY.value], old.get(ConditionType.READY.value)
    if ready.status is ConditionStatus.TRUE and (was is None or was.status is not ready.status):
        yield Note(NoteReason.READY, ready.message)


def _turned_bad(old: Condition | None, new: Condition) -> bool:
    if new.status is not ConditionStatus.FALSE or new.reason in _HARMLESS:
        return False
    return old is None or (old.status, old.reason) != (new.status, new.reason)


def _progress(before: LLMDeploymentStatus, after: LLMDeploymentStatus) -> Iterator[Note]:
    model = after.model
    if model and (before.model is None or before.model.source != model.source):
        yield Note(
            NoteReason.MODEL_INSPECTED,
            f"{model.source} is a {model.architecture} model of {model.parameters / 1e6:,.0f}"
            " million parameters.",
        )
    plan, old = after.plan, before.plan
    if plan and (
        old is None or (old.accelerator, old.quantization) != (plan.accelerator, plan.quantization)
    ):
        yield Note(
            NoteReason.PLANNED,
            f"{_WEIGHTS.get(plan.quantization, plan.quantization.value)} on {plan.because}",
        )


def _decisions(before: LLMDeploymentStatus, after: LLMDeploymentStatus) -> Iterator[Note]:
    known = set(map(_key, before.decisions))
    for decision in after.decisions:
        if _key(decision) in known:
            continue
        up = decision.to_replicas > decision.from_replicas
        yield Note(
            NoteReason.SCALED_UP if up else NoteReason.SCALED_DOWN,
            f"{decision.from_replicas} to {decision.to_replicas} replicas: {decision.because}",
        )


def _key(decision: object) -> str:
    return repr(decision)


def _signature(obj: dict[str, object]) -> object:
    metadata = obj.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return (annotations or {}).get(APPLIED_ANNOTATION)
