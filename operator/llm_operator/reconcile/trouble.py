"""Why a pod does not run, in words a user can act on, read from nothing but the pod itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from llm_engine.contract.inspection import Failure

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Trouble:
    """One cause: `reason` is one CamelCase word, `message` says what to do."""

    reason: str
    message: str


SECRET_NOT_FOUND: Final = "SecretNotFound"
OOM_KILLED: Final = "OOMKilled"
UNSCHEDULABLE: Final = "Unschedulable"
ENGINE_EXITED: Final = "EngineExited"

_LONGEST_MESSAGE: Final = 1000
_LAST_LINES: Final = 5

# Waiting reasons of the kubelet that do not pass by themselves, and what to do about each.
_STUCK: Final = {
    "ErrImagePull": ("ImagePullFailed", "check the image, its registry and the pull secrets"),
    "ImagePullBackOff": ("ImagePullFailed", "check the image, its registry and the pull secrets"),
    "ErrImageNeverPull": ("ImagePullFailed", "the pull policy is Never and the node lacks it"),
    "InvalidImageName": ("InvalidImage", "correct the name of the image"),
    "CreateContainerConfigError": ("InvalidContainer", "correct what the container refers to"),
    "CreateContainerError": ("InvalidContainer", "correct what the container refers to"),
    "RunContainerError": ("ContainerNotStarted", "see `kubectl describe pod`"),
}


def trouble_of(pod: Json) -> Trouble | None:
    """Return what keeps this pod from running; None while all goes as it should."""
    status = pod.get("status") or {}
    for container in _containers(status):
        found = _waiting_trouble(container) or _ended_trouble(container)
        if found:
            return found
    if status.get("phase") == "Failed" and status.get("reason"):  # Evicted, NodeLost ...
        return Trouble(status["reason"], _cut(status.get("message") or "The pod was ended."))
    return _scheduling_trouble(status)


def last_words(pod: Json) -> str | None:
    """Return the termination message of the pod's container, once it has ended."""
    for container in _containers(pod.get("status") or {}):
        ended = _ended(container)
        if ended:
            return str(ended.get("message") or "")
    return None


def _containers(status: Json) -> Iterator[Json]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _ended(container: Json) -> Json | None:
    """Return how the container last ended: now, or before the restart that is under way."""
    for state in ("state", "lastState"):
        ended = (container.get(state) or {}).get("terminated")
        if ended:
            return dict(ended)
    return None


def _waiting_trouble(container: Json) -> Trouble | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason"), waiting.get("message") or ""
    if reason not in _STUCK:
        return None
    if reason == "CreateContainerConfigError" and "secret" in message.lower():
        return Trouble(
            SECRET_NOT_FOUND,
            _cut(f"{_sentence(message)}. Create the Secret with the key `token`."),
        )
    word, advice = _STUCK[reason]
    return Trouble(word, _cut(f"{_sentence(message or reason)}: {advice}."))


def _ended_trouble(container: Json) -> Trouble | None:
    ended = _ended(container)
    if container.get("ready") or not ended or ended.get("exitCode") == 0:
        return None
    failure = _failure(ended.get("message"))
    if failure:
        return Trouble(failure.reason.value, _cut(failure.message))
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            OOM_KILLED,
            "The container was killed because it used more memory than its limit: raise"
            " spec.template.resources.limits.memory, or lower spec.model.maxContextTokens.",
        )
    lines = str(ended.get("message") or "").strip().splitlines()[-_LAST_LINES:]
    said = f" Its last lines: {' / '.join(lines)}" if lines else ""
    return Trouble(
        ENGINE_EXITED,
        _cut(f"The container exited with code {ended.get('exitCode')}.{said}"),
    )


def _failure(message: str | None) -> Failure | None:
    """Return the failure an engine names in its termination message, alone or in a report."""
    lines = (message or "").strip().splitlines()
    for text in (message, lines[-1] if lines else None):  # alone, or as the last line of the log
        try:
            said = json.loads(text or "")
            return Failure.model_validate(said.get("failure") or said)
        except (ValueError, AttributeError, ValidationError):
            continue
    return None


def _scheduling_trouble(status: Json) -> Trouble | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            if condition.get("reason") == "SchedulingGated":
                return None
            message = condition.get("message") or "no node takes the pod"
            return Trouble(UNSCHEDULABLE, _cut(f"No node can run the pod: {_sentence(message)}."))
    return None


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _cut(text: str) -> str:
    """Keep a condition readable: one line, at most a thousand characters."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 2] + " …"
