"""The cause of a stuck pod, in words a user can act on."""

from typing import Any

import pytest

from llm_operator.reconcile.pods import pod_of
from llm_operator.reconcile.trouble import trouble_of
from tests.reconcile.world import World


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "engine", "ready": False, "state": state}]}


def ended(now: str = "state", **terminated: Any) -> dict[str, Any]:
    return {
        "containerStatuses": [{"name": "engine", "ready": False, now: {"terminated": terminated}}]
    }


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


CASES = [
    pytest.param(
        waiting("ImagePullBackOff", 'Back-off pulling image "nowhere/engine:1"'),
        "ImagePullFailed",
        "nowhere/engine:1",
        id="an image that is not there",
    ),
    pytest.param(
        waiting("InvalidImageName", "couldn't parse"), "InvalidImage", "correct", id="a bad image"
    ),
    pytest.param(
        waiting("CreateContainerConfigError", 'secret "hf-token" not found'),
        "SecretNotFound",
        "hf-token",
        id="a Secret that is not there",
    ),
    pytest.param(
        waiting("CreateContainerConfigError", "couldn't find key token in Secret demo/hf-token"),
        "SecretNotFound",
        "key `token`",
        id="a Secret without the key",
    ),
    pytest.param(
        unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        "Unschedulable",
        "3 Insufficient nvidia.com/gpu",
        id="no node with a GPU",
    ),
    pytest.param(
        unscheduled('persistentvolumeclaim "models" not found'),
        "Unschedulable",
        '"models" not found',
        id="a claim that is not there",
    ),
    pytest.param(
        ended(exitCode=137, reason="OOMKilled"), "OOMKilled", "limits.memory", id="out of memory"
    ),
    pytest.param(
        ended("lastState", exitCode=137, reason="OOMKilled"),
        "OOMKilled",
        "limits.memory",
        id="out of memory before the restart",
    ),
    pytest.param(
        ended(exitCode=1, message="a\nb\nc\nd\ne\nValueError: odd"),
        "EngineExited",
        "code 1. Its last lines: b / c / d / e / ValueError: odd",
        id="an exit with last words",
    ),
    pytest.param(
        ended(exitCode=3, message='{"reason": "AccessDenied", "message": "gated: set secretRef"}'),
        "AccessDenied",
        "gated: set secretRef",
        id="a failure that the engine names",
    ),
    pytest.param(
        ended(
            exitCode=3,
            message='INFO loading\n{"reason": "OutOfMemory", "message": "needs 9 GiB"}',
        ),
        "OutOfMemory",
        "needs 9 GiB",
        id="a failure at the end of the log",
    ),
    pytest.param(
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
        "Evicted",
        "low on memory",
        id="an evicted pod",
    ),
]


@pytest.mark.parametrize(("status", "reason", "said"), CASES)
def test_the_cause_is_named(status: dict[str, Any], reason: str, said: str) -> None:
    trouble = trouble_of({"status": status})
    assert trouble is not None
    assert trouble.reason == reason
    assert said in trouble.message
    assert "\n" not in trouble.message


@pytest.mark.parametrize(("status", "reason", "said"), CASES)
def test_the_cause_reaches_ready_and_the_events_once(
    status: dict[str, Any], reason: str, said: str
) -> None:
    world = World()
    world.inspected()
    world.a_pod("replica-0", **status)
    world.settle()
    assert world.says("Ready") == f"False {reason}"
    assert said in world.condition("Ready")["message"]
    assert world.says("Progressing") == f"False {reason}"
    world.wait(120)
    assert len([note for note in world.notes if reason in note.message]) == 1


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="nothing yet"),
        pytest.param(waiting("ContainerCreating"), id="being created"),
        pytest.param(ended(exitCode=0), id="a clean end"),
        pytest.param({"containerStatuses": [{"state": None}]}, id="an odd state"),
        pytest.param(
            {"containerStatuses": [{"ready": True, "lastState": {"terminated": {"exitCode": 1}}}]},
            id="a restart that worked",
        ),
    ],
)
def test_no_cause_is_made_up(status: dict[str, Any]) -> None:
    assert trouble_of({"status": status}) is None


@pytest.mark.parametrize(
    "raw",
    [{}, {"metadata": None, "status": None}, {"metadata": {"annotations": None}}],
)
def test_an_odd_pod_is_read_without_a_crash(raw: dict[str, Any]) -> None:
    assert pod_of(raw).name == ""


def test_a_pod_that_may_not_be_created_is_named() -> None:
    world = World()
    world.inspected()
    condition = {
        "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods=0",
    }  # fmt: skip
    world.engine["status"] = {"conditions": [condition]}
    world.settle()
    assert world.says("Ready") == "False PodsForbidden"
    assert "exceeded quota" in world.condition("Ready")["message"]


def test_one_stuck_replica_of_two_does_not_hide_that_the_other_answers() -> None:
    world = World().serving()
    world.a_pod("replica-9", **unscheduled("0/1 nodes are available"))
    world.engine["spec"]["replicas"] = 2
    world.look()
    assert world.says("Ready") == "True Serving"


def test_a_rollout_that_does_not_come_to_an_end_is_named_while_the_old_serves() -> None:
    world = World().serving()
    world.engine["status"] |= {
        "conditions": [
            {
                "type": "Progressing",
                "status": "False",
                "reason": "ProgressDeadlineExceeded",
                "message": 'ReplicaSet "x" has timed out progressing.',
            }
        ]
    }
    world.settle()
    assert world.says("Ready") == "True Serving"
    assert world.says("Progressing") == "False DeadlineExceeded"
