"""How many replicas: what the law says, and who has the word in each mode."""

from typing import Any, Final, TypeAlias

from llm_operator.api.deployment_spec import ScalingMode
from llm_operator.api.parsing import LLMDeployment
from llm_operator.planner.choice import Choice
from llm_operator.reconcile.observed import Observed
from llm_operator.reconcile.pods import Pod
from llm_operator.scaling import (
    Replica,
    ScalingDecision,
    ScalingState,
    decide_replicas,
    load_of,
    rule_of,
)

Json: TypeAlias = dict[str, Any]

_ASSUMED_COLD_START_S: Final = 60.0


def ordered_replicas(engine: Json | None) -> int | None:
    """Return the replicas asked of Kubernetes; None where nothing was asked yet."""
    if engine is None:
        return None
    return int((engine.get("spec") or {}).get("replicas") or 0)


def scale(
    deployment: LLMDeployment,
    observed: Observed,
    engine: Json | None,
    pods: tuple[Pod, ...],
    choice: Choice | None,
    now_s: float,
) -> ScalingDecision:
    """Ask the scaling law; it works from what runs, so a spec that is stuck never stops it.

    pods  of the replicas, those being deleted too: they still cost
    """
    plan, measured = deployment.status.plan, deployment.status.cold_start
    if choice and choice.accelerator:
        price_per_h = choice.accelerator.spec.price.per_h
    else:
        price_per_h = plan.price_per_h if plan else None
    cold_start_s = _ASSUMED_COLD_START_S
    if measured:
        phases = (measured.scheduling_s, measured.pulling_s, measured.loading_s, measured.warmup_s)
        cold_start_s = sum(phase or 0.0 for phase in phases)
    state = observed.scaling or ScalingState.from_status(deployment.status.scaling)
    replicas = [Replica(pod.name, pod.ready, pod.terminating) for pod in pods]
    load = load_of(replicas, ordered_replicas(engine), observed.samples)
    return decide_replicas(rule_of(deployment.spec, price_per_h, cold_start_s), load, state, now_s)


def wanted_replicas(
    deployment: LLMDeployment, ordered: int | None, scaled: ScalingDecision | None
) -> int | None:
    """Return the replicas to order; None where there is nothing yet to order them of.

    What is not known leaves the number as it is: absence of an answer is never a zero.
    """
    if scaled is None:
        return ordered
    match deployment.spec.scaling.mode:
        case ScalingMode.AUTO:
            return scaled.replicas
        case ScalingMode.ADVISORY:
            return scaled.replicas if ordered is None else ordered
        case ScalingMode.MANUAL:
            if deployment.spec.replicas is not None:
                return deployment.spec.replicas
            return 1 if ordered is None else ordered
