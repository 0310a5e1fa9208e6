"""A pod as far as decisions need it, read tolerantly from the raw object."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from llm_operator.api import names
from llm_operator.reconcile.trouble import Trouble, last_words, trouble_of

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """What one pod shows.

    created_s .. ended_s  Unix times; None: not yet
    incarnation           changes when the pod or its container is another one
    last_words            termination message of a container that has ended
    """

    name: str
    uid: str
    component: str
    owner_uid: str | None
    ready: bool
    terminating: bool
    ip: str | None
    incarnation: str
    trouble: Trouble | None
    last_words: str | None
    deletion_cost: int | None
    resource_version: str
    created_s: float | None
    scheduled_s: float | None
    started_s: float | None
    ready_s: float | None
    ended_s: float | None


def pod_of(raw: Json) -> Pod:
    """Read a raw pod; what is missing or odd reads as not there."""
    metadata = raw.get("metadata") or {}
    status = raw.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    container: Json = (status.get("containerStatuses") or ({},))[0]
    uid = str(metadata.get("uid") or "")
    owners = metadata.get("ownerReferences") or ()
    owner: Json = next((owner for owner in owners if owner.get("controller")), {})
    state = container.get("state") or {}
    running, terminated = state.get("running") or {}, state.get("terminated") or {}
    return Pod(
        name=str(metadata.get("name") or ""),
        uid=uid,
        component=str((metadata.get("labels") or {}).get(names.COMPONENT_LABEL) or ""),
        owner_uid=owner.get("uid"),
        ready=_holds(conditions.get("Ready")),
        terminating=bool(metadata.get("deletionTimestamp")),
        ip=status.get("podIP"),
        incarnation=f"{uid}/{container.get('restartCount') or 0}",
        trouble=trouble_of(raw),
        last_words=last_words(raw),
        deletion_cost=_deletion_cost(metadata),
        resource_version=str(metadata.get("resourceVersion") or ""),
        created_s=unix_s(metadata.get("creationTimestamp")),
        scheduled_s=_since(conditions.get("PodScheduled")),
        started_s=unix_s(running.get("startedAt")),
        ready_s=_since(conditions.get("Ready")),
        ended_s=unix_s(terminated.get("finishedAt")),
    )


def unix_s(timestamp: object) -> float | None:
    """Return the Unix time of an RFC 3339 timestamp; None where there is none to read."""
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        return None


def _holds(condition: Json | None) -> bool:
    return condition is not None and condition.get("status") == "True"


def _since(condition: Json | None) -> float | None:
    return unix_s((condition or {}).get("lastTransitionTime")) if _holds(condition) else None


def _deletion_cost(metadata: Json) -> int | None:
    try:
        cost = (metadata.get("annotations") or {})[names.POD_DELETION_COST_ANNOTATION]
        return int(cost)
    except (KeyError, ValueError, TypeError):
        return None
