"""From a fresh LLMDeployment to one that answers."""

import pytest

from llm_engine.contract.inspection import FailureReason
from tests.reconcile.world import START_S, World, a_class, a_deployment, a_failure


def test_the_first_look_sets_every_condition_and_starts_the_inspection() -> None:
    world = World()
    world.look()
    conditions = world.deployment["status"]["conditions"]
    assert [c["type"] for c in conditions] == [
        "Ready", "Accepted", "TargetsAchievable", "Available", "Progressing",
        "MetricsAvailable", "TargetsMet", "WithinBudget",
    ]  # fmt: skip
    assert {c["observedGeneration"] for c in conditions} == {1}
    assert world.says("Ready") == "False Inspecting"
    assert world.says("Accepted") == "True Accepted"
    assert {kind for kind, _ in world.children} == {"Job", "Service", "PodDisruptionBudget"}


def test_the_inspect_job_reports_through_its_termination_message() -> None:
    world = World()
    world.look()
    [job] = world.of_kind("Job")
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [
        "inspect", "/model/smollm2", "--json", "--output", "/dev/termination-log",
    ]  # fmt: skip
    assert job["spec"]["backoffLimit"] == 0


def test_a_model_that_was_inspected_is_described_planned_and_launched() -> None:
    world = World()
    world.inspected()
    status = world.deployment["status"]
    assert status["model"]["architecture"] == "llama"
    assert status["model"]["parameters"] == 134_515_008
    assert status["plan"]["accelerator"] == "cpu"
    assert "GiB" in status["plan"]["because"]
    assert world.engine["spec"]["replicas"] == 1
    assert world.of_kind("Job") == []


def test_ready_needs_a_replica_that_is_ready() -> None:
    world = World()
    world.inspected()
    world.a_pod("replica-0", phase="Pending")
    world.settle()
    assert world.says("Ready") == "False Scheduling"
    del world.children["Pod", "replica-0"]
    world.rolled_out(1)
    assert world.says("Ready") == "True Serving"
    assert world.says("Available") == "True AllReplicasReady"
    assert world.says("Progressing") == "False Settled"
    assert world.deployment["status"]["coldStart"] == {
        "scheduling": "1s", "pulling": "3s", "loading": "26s",
    }  # fmt: skip


def test_events_tell_the_story_once() -> None:
    world = World().serving()
    world.wait(60)
    told = [note.reason.value for note in world.notes]
    assert [reason for reason in told if reason != "MetricsUnavailable"] == [
        "ModelInspected", "Planned", "Ready",
    ]  # fmt: skip


def test_at_rest_nothing_is_written() -> None:
    world = World().serving()
    reports = world.reports
    world.wait(300)
    assert world.reports == reports


def test_a_failed_inspection_is_named_and_tried_again_ever_more_slowly() -> None:
    world = World()
    world.settle()
    attempts = []
    for _ in range(6):
        begun_s = world.now_s
        world.end_inspection(a_failure(FailureReason.MODEL_NOT_FOUND, "no such folder"))
        world.settle()
        assert world.says("Ready") == "False ModelNotFound"
        newest = world.of_kind("Job")[-1]
        while world.of_kind("Job")[-1] is newest:
            world.wait(5)
        attempts.append(world.now_s - begun_s)
        assert world.says("Ready") == "False ModelNotFound", "the cause stays while it is tried"
    assert attempts == [10, 20, 40, 80, 160, 320]
    world.settle()
    assert len(world.of_kind("Job")) == 2
    assert [n.message for n in world.notes if n.reason == "NotReady"] == [
        "ModelNotFound: no such folder"
    ]


def test_an_inspection_that_works_in_the_end_is_used() -> None:
    world = World()
    world.settle()
    world.end_inspection("Traceback ...\nBoom", exit_code=1)
    world.settle()
    assert world.says("Ready") == "False EngineExited"
    assert "Boom" in world.condition("Ready")["message"]
    world.wait(15)
    world.inspected()
    world.rolled_out(1)
    assert world.says("Ready") == "True Serving"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="an empty report"),
        pytest.param("{}", id="a report of nothing"),
        pytest.param("[1]", id="a report that is no object"),
        pytest.param('{"shape": {"layers": -1}}', id="a shape that cannot be"),
        pytest.param("\x00\ufffd", id="noise"),
    ],
)
def test_a_report_that_says_nothing_is_a_failure_not_a_crash(message: str) -> None:
    world = World()
    world.settle()
    world.end_inspection(message)
    world.settle()
    assert world.says("Ready") == "False InspectFailed"


def test_a_new_source_is_inspected_while_the_old_one_serves() -> None:
    world = World().serving()
    world.edit(model={"source": "pvc://models/other"})
    world.settle()
    assert world.says("Ready") == "True Serving"
    assert world.says("Progressing") == "True Inspecting"
    args = world.engine["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[1] == "/model/smollm2"
    world.inspected()
    args = world.engine["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[1] == "/model/other"


def test_a_new_source_that_is_wrong_leaves_the_old_one_serving() -> None:
    world = World().serving()
    world.edit(model={"source": "pvc://models/wrong"})
    world.settle()
    world.end_inspection(a_failure(FailureReason.MODEL_NOT_FOUND, "no such folder"))
    world.settle()
    assert world.says("Ready") == "True Serving"
    assert world.says("Progressing") == "False ModelNotFound"
    args = world.engine["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[1] == "/model/smollm2"
    world.edit(scaling={"minReplicas": 2, "maxReplicas": 2})
    world.settle()
    assert world.engine["spec"]["replicas"] == 2, "what serves goes on being scaled"


@pytest.mark.parametrize(
    ("classes", "reason", "said"),
    [
        pytest.param([], "NoAccelerator", "cpu", id="no class of that name"),
        pytest.param(
            [a_class(memory="1Gi")], "DoesNotFit", "0.90 of 1.0 GiB", id="too little memory"
        ),
    ],
)
def test_a_model_that_no_hardware_takes_says_why(
    classes: list[dict[str, object]], reason: str, said: str
) -> None:
    world = World(classes=classes)
    world.inspected()
    assert world.says("Ready") == f"False {reason}"
    assert said in world.condition("Ready")["message"]
    assert world.says("TargetsAchievable") == f"False {reason}"
    assert world.of_kind("Deployment") == []


def test_the_budget_that_one_replica_breaks_is_named() -> None:
    world = World(deployment=a_deployment(targets={"maxCostPerHour": "0.01"}))
    world.inspected()
    assert world.says("TargetsAchievable") == "False OverBudget"
    assert "0.05" in world.condition("TargetsAchievable")["message"]


def test_transition_times_move_only_when_the_status_does() -> None:
    world = World()
    world.settle()
    first = world.condition("Accepted")["lastTransitionTime"]
    world.now_s = START_S + 1000
    world.inspected()
    assert world.condition("Accepted")["lastTransitionTime"] == first
