"""The Events that users see in `kubectl describe`: few reasons, each with one meaning."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class NoteReason(StrEnum):
    """Every reason an Event of the operator can have."""

    MODEL_INSPECTED = "ModelInspected"
    PLANNED = "Planned"
    READY = "Ready"
    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    REPAIRED = "Repaired"
    NOT_READY = "NotReady"
    NOT_PROGRESSING = "NotProgressing"
    NOT_ACCEPTED = "NotAccepted"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    TARGETS_MISSED = "TargetsMissed"
    OVER_BUDGET = "OverBudget"


WARNINGS: Final = frozenset(
    {
        NoteReason.NOT_READY,
        NoteReason.NOT_PROGRESSING,
        NoteReason.NOT_ACCEPTED,
        NoteReason.METRICS_UNAVAILABLE,
        NoteReason.TARGETS_MISSED,
        NoteReason.OVER_BUDGET,
    }
)

MEANING: Final = {
    NoteReason.MODEL_INSPECTED: "The inspect Job has read the model's configuration and headers.",
    NoteReason.PLANNED: "Hardware and quantization were chosen, or chosen anew.",
    NoteReason.READY: "The first replica answers.",
    NoteReason.SCALED_UP: "More replicas were ordered; the message has the numbers.",
    NoteReason.SCALED_DOWN: "Fewer replicas were ordered; the message has the numbers.",
    NoteReason.REPAIRED: "An object of this LLMDeployment was changed or deleted by somebody else"
    " and has been put back.",
    NoteReason.NOT_READY: "No replica answers; the message has the cause, as condition Ready has.",
    NoteReason.NOT_PROGRESSING: "The newest spec is not being rolled out; the message has the"
    " cause. Replicas of the spec before go on serving.",
    NoteReason.NOT_ACCEPTED: "The spec cannot be acted on, or another LLMDeployment holds the"
    " served name.",
    NoteReason.METRICS_UNAVAILABLE: "Load is not known in full, so replicas are only ever added.",
    NoteReason.TARGETS_MISSED: "A latency target is missed.",
    NoteReason.OVER_BUDGET: "More replicas are needed than the budget allows.",
}


@dataclass(frozen=True)
class Note:
    """One Event to record on the LLMDeployment."""

    reason: NoteReason
    message: str

    @property
    def type(self) -> str:
        """Normal or Warning."""
        return "Warning" if self.reason in WARNINGS else "Normal"
