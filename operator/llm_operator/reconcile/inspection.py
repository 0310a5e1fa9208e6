"""Inspecting the model: one Job per model source, its report, and trying again after a failure."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from llm_engine.contract.arguments import inspect_command_line
from llm_engine.contract.inspection import Inspection
from llm_operator.api import names
from llm_operator.api.parsing import LLMDeployment
from llm_operator.reconcile.decision import Apply, Delete
from llm_operator.reconcile.drift import fingerprint
from llm_operator.reconcile.identity import child_metadata, inspect_prefix, labels
from llm_operator.reconcile.observed import EngineSettings, Observed
from llm_operator.reconcile.pod_spec import model_access, restricted_container, restricted_pod
from llm_operator.reconcile.pods import Pod, unix_s
from llm_operator.reconcile.trouble import Trouble

Json: TypeAlias = dict[str, Any]

FIRST_RETRY_S: Final = 10.0
LONGEST_RETRY_S: Final = 600.0
_DEADLINE_S: Final = 1800  # an image pull counts; a hung download must not last for ever
_TERMINATION_LOG: Final = "/dev/termination-log"
_RESOURCES: Final = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"memory": "1Gi"},  # headers only, no torch; a lying header cannot take the node
}


@dataclass(frozen=True)
class InspectionState:
    """How far the inspection of the wanted source is.

    pending   the model of the wanted source is not known yet
    report    what a finished inspection found; None: there is none yet
    trouble   what keeps it from finishing; None while it goes as it should
    retry_at_s  Unix time of the next attempt after a failure
    """

    pending: bool = False
    report: Inspection | None = None
    trouble: Trouble | None = None
    retry_at_s: float | None = None
    actions: tuple[Apply | Delete, ...] = ()


def inspect(
    deployment: LLMDeployment, observed: Observed, settings: EngineSettings, now_s: float
) -> InspectionState:
    """Say how far the inspection is, and what to create or delete to get further.

    A source that status.model already describes needs no Job. A failed attempt stays visible until
    the next one, which comes 10 s later, then 20 s and so on, at most 10 minutes.
    """
    jobs = sorted(observed.of_kind("Job"), key=_attempt)
    known = deployment.status.model
    if known and known.source == deployment.spec.model.source and known.shape:
        return InspectionState(actions=tuple(Delete(job) for job in jobs if not _deleting(job)))

    pod_spec = _pod_spec(deployment, settings)
    prefix = f"{inspect_prefix(deployment.metadata.name)}{fingerprint(pod_spec)[:8]}-"
    ours = [job for job in jobs if job["metadata"]["name"].startswith(prefix)]
    # The attempt before the newest stays, so that its cause is shown while the newest runs.
    old = tuple(Delete(job) for job in jobs if job not in ours[-2:] and not _deleting(job))
    outcomes = [_outcome(observed, job) for job in ours[-2:]]
    latest = outcomes[-1] if outcomes else None
    attempts = _attempt(ours[-1]) if ours else 0
    trouble = next((o.trouble for o in reversed(outcomes) if o.trouble), None)
    retry_at_s = _retry_at_s(latest, attempts)
    if latest is None or _deleting(ours[-1]) or (retry_at_s is not None and now_s >= retry_at_s):
        job = _job(deployment, pod_spec, f"{prefix}{attempts + 1}")
        return InspectionState(True, None, trouble, actions=(*old, Apply(job, None)))
    return InspectionState(latest.report is None, latest.report, trouble, retry_at_s, old)


@dataclass(frozen=True)
class _Outcome:
    """What one attempt has come to; ended_s is None while it runs."""

    report: Inspection | None
    trouble: Trouble | None
    ended_s: float | None


def _retry_at_s(outcome: _Outcome | None, attempts: int) -> float | None:
    """Return when to try again after a failed attempt; None where there is no cause to."""
    if outcome is None or outcome.report or outcome.ended_s is None:
        return None
    pause_s: float = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 10), LONGEST_RETRY_S)
    return outcome.ended_s + pause_s


def _outcome(observed: Observed, job: Json) -> _Outcome:
    """Read an attempt's outcome from its pod, or from the Job where the pod is gone."""
    uid = job["metadata"].get("uid")
    pods = [pod for pod in observed.pods if pod.owner_uid == uid]
    for pod in pods:
        if pod.ended_s is not None:
            return _report_of(pod)
    ended = next(
        (
            condition
            for condition in (job.get("status") or {}).get("conditions") or ()
            if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True"
        ),
        None,
    )
    if ended:
        why = ended.get("message") or "its pod is gone"
        trouble = Trouble("InspectFailed", f"The inspect Job ended without a report: {why}.")
        return _Outcome(None, trouble, unix_s(ended.get("lastTransitionTime")) or 0.0)
    return _Outcome(None, next((pod.trouble for pod in pods if pod.trouble), None), None)


def _report_of(pod: Pod) -> _Outcome:
    try:
        report = Inspection.model_validate_json(pod.last_words or "")
    except ValueError:
        trouble = pod.trouble or Trouble(
            "InspectFailed",
            f"The inspect pod {pod.name} left no report that can be read: {pod.last_words!r}.",
        )
        return _Outcome(None, trouble, pod.ended_s)
    if report.failure:
        trouble = Trouble(report.failure.reason.value, report.failure.message)
        return _Outcome(None, trouble, pod.ended_s)
    if report.shape is None:
        trouble = Trouble("InspectFailed", "The inspect Job reported neither shape nor failure.")
        return _Outcome(None, trouble, pod.ended_s)
    return _Outcome(report, None, pod.ended_s)


def _pod_spec(deployment: LLMDeployment, settings: EngineSettings) -> Json:
    access = model_access(deployment.spec)
    container = restricted_container(names.INSPECT_COMPONENT, settings, access)
    container["command"] = ["llm-engine"]
    container["args"] = inspect_command_line(access.argument, _TERMINATION_LOG)
    container["resources"] = _RESOURCES
    return restricted_pod(container, deployment.spec, settings, access) | {"restartPolicy": "Never"}


def _job(deployment: LLMDeployment, pod_spec: Json, name: str) -> Json:
    """Return the Job of one attempt. It is never changed: another source is another Job."""
    owner = deployment.metadata
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(owner, name, names.INSPECT_COMPONENT),
        "spec": {
            "backoffLimit": 0,  # we try again ourselves, ever more slowly and with the cause shown
            "activeDeadlineSeconds": _DEADLINE_S,
            "template": {
                "metadata": {"labels": labels(owner.name, names.INSPECT_COMPONENT)},
                "spec": pod_spec,
            },
        },
    }


def _attempt(job: Json) -> int:
    """Return the number at the end of the Job's name; 0 for a name that is not ours."""
    tail = job["metadata"]["name"].rpartition("-")[2]
    return int(tail) if tail.isascii() and tail.isdigit() else 0


def _deleting(job: Json) -> bool:
    return bool(job["metadata"].get("deletionTimestamp"))
