"""The status to report, and whether it is worth a write: at rest nothing is written."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from llm_engine.contract.inspection import Inspection
from llm_operator.api.deployment_spec import ScalingMode
from llm_operator.api.deployment_status import (
    MAX_DECISIONS,
    ColdStart,
    Condition,
    ConditionType,
    Decision,
    LLMDeploymentStatus,
    ModelStatus,
    StatusShape,
)
from llm_operator.api.parsing import LLMDeployment
from llm_operator.planner.choice import ACCELERATOR_DTYPE_BYTES, Choice, memory_of
from llm_operator.reconcile.pods import Pod
from llm_operator.scaling import ScalingDecision, ScalingState

Json: TypeAlias = dict[str, Any]

MEASUREMENTS_EVERY_S: Final = 30.0
_MEASURED: Final = ("observed", "scaling")
_OURS: Final = frozenset(kind.value for kind in ConditionType)


def worth_reporting(
    new: LLMDeploymentStatus, raw: Json, reported_s: float | None, now_s: float
) -> Json | None:
    """Return the status to write; None where what is stored says the same.

    What is measured moves all the time: alone it is written once in 30 s.

    raw         the status as stored
    reported_s  Unix time of the last write; None: not by this process
    """
    wanted, stored = new.to_wire(), _stored(raw)
    if _comparable(wanted) == _comparable(stored):
        return None
    lately = reported_s is not None and 0 <= now_s - reported_s < MEASUREMENTS_EVERY_S
    if lately and _lasting(wanted) == _lasting(stored):
        return None
    return wanted


def _stored(raw: Json) -> Json:
    """Return the stored status without the conditions that others keep there."""
    conditions = raw.get("conditions")
    listed = conditions if isinstance(conditions, list) else []
    ours = [c for c in listed if isinstance(c, dict) and c.get("type") in _OURS]
    return {**raw, "conditions": ours}


def _comparable(status: Json) -> Json:
    conditions = status.get("conditions") or ()
    return {**status, "conditions": {c.get("type"): c for c in conditions}}


def _lasting(status: Json) -> Json:
    """Return the status without what is measured: numbers, and the words around them."""
    kept = {key: value for key, value in status.items() if key not in _MEASURED}
    conditions = {
        condition.get("type"): {k: v for k, v in condition.items() if k != "message"}
        for condition in status.get("conditions") or ()
    }
    return {**kept, "conditions": conditions}


def model_status(
    deployment: LLMDeployment, report: Inspection | None, choice: Choice | None
) -> ModelStatus | None:
    """Return what is known of the model; an older source's stays until the new one is inspected.

    choice  decides the bytes per element, so weight and KV bytes follow the hardware
    """
    old = deployment.status.model
    shape = report.shape if report else old.shape if old else None
    if shape is None or choice is None:
        return old
    quantization = deployment.spec.quantization
    memory = memory_of(choice.accelerator, deployment.spec) if choice.accelerator else None
    dtype_bytes = memory.dtype_bytes if memory else ACCELERATOR_DTYPE_BYTES
    context_tokens = deployment.spec.model.max_context_tokens or shape.context_tokens
    return ModelStatus(
        source=deployment.spec.model.source,
        architecture=shape.architecture,
        parameters=shape.parameters,
        weight_bytes=shape.weight_bytes(quantization, dtype_bytes),
        kv_bytes_per_token=shape.kv_bytes_per_token(dtype_bytes),
        context_tokens=min(context_tokens, shape.context_tokens),
        file_bytes=report.file_bytes if report else old.file_bytes if old else None,
        file_format=report.file_format if report else old.file_format if old else None,
        shape=StatusShape(**shape.model_dump()),
    )


def cold_start(replicas: tuple[Pod, ...]) -> ColdStart | None:
    """Return how long the replica that became ready last took, by phase; None: none is ready.

    Kubernetes keeps whole seconds. Loading includes the warm-up token: readiness needs both.
    """
    ready = [pod for pod in replicas if pod.ready and pod.ready_s is not None]
    if not ready:
        return None
    latest = max(ready, key=lambda pod: pod.ready_s or 0.0)
    steps = (latest.created_s, latest.scheduled_s, latest.started_s, latest.ready_s)
    if latest.incarnation.rpartition("/")[2] != "0" or None in steps:
        return None  # a restarted container tells the time of its restart, not of a start
    created_s, scheduled_s, started_s, ready_s = (step or 0.0 for step in steps)
    return ColdStart(
        scheduling_s=max(0.0, scheduled_s - created_s),
        pulling_s=max(0.0, started_s - scheduled_s),
        loading_s=max(0.0, ready_s - started_s),
    )


def decisions(
    deployment: LLMDeployment, scaled: ScalingDecision | None, applied: int | None, now_s: float
) -> list[Decision]:
    """Return the last decisions, newest first, with this one where it changes something.

    applied  replicas that will be ordered; what an Advisory mode would do is kept too, but once
    """
    kept = deployment.status.decisions
    if scaled is None or not scaled.changed or scaled.ordered is None:
        return kept
    mode = deployment.spec.scaling.mode
    if mode is ScalingMode.MANUAL:
        return kept
    would_be = applied != scaled.replicas
    if (
        would_be
        and kept
        and (kept[0].from_replicas, kept[0].to_replicas)
        == (
            scaled.ordered,
            scaled.replicas,
        )
    ):
        return kept
    newest = Decision(
        time=datetime.fromtimestamp(now_s, UTC),
        from_replicas=scaled.ordered,
        to_replicas=scaled.replicas,
        reason=scaled.reason,
        because=("Advice only: " if would_be else "") + scaled.because,
        inputs=dict(scaled.inputs),
    )
    return [newest, *kept][:MAX_DECISIONS]


def scaling_memory(deployment: LLMDeployment, scaled: ScalingDecision | None) -> Json | None:
    """Return what the scaling law has to find again after a restart, still at rest."""
    stored = deployment.status.scaling
    if scaled is None:
        return stored
    saved = ScalingState.from_status(stored)
    if stored is not None and not scaled.state.worth_writing(saved):
        return stored
    return scaled.state.as_status()


@dataclass(frozen=True)
class Replicas:
    """Replicas as they exist now."""

    exist: int
    ready: int


def assemble(
    deployment: LLMDeployment,
    conditions: list[Condition],
    replicas: Replicas,
    selector: str,
    **parts: Any,
) -> LLMDeploymentStatus:
    """Return the whole status: what is not given stays as it was."""
    return deployment.status.model_copy(
        update={
            "observed_generation": deployment.metadata.generation,
            "conditions": conditions,
            "replicas": replicas.exist,
            "ready_replicas": replicas.ready,
            "selector": selector,
            **parts,
        }
    )
