"""Modes, pause, name conflicts, bad specs: when the operator acts, and when it does not."""

import pytest

from llm_operator.reconcile.decision import Apply
from llm_operator.reconcile.trouble import Trouble
from tests.reconcile.world import START_S, World, a_deployment, stamp


def test_manual_follows_the_number_of_the_user() -> None:
    world = World(deployment=a_deployment(scaling={"mode": "Manual"}, replicas=3))
    world.inspected()
    assert world.engine["spec"]["replicas"] == 3
    world.edit(replicas=1)
    world.settle()
    assert world.engine["spec"]["replicas"] == 1


def test_manual_at_zero_says_who_can_change_it() -> None:
    world = World(deployment=a_deployment(scaling={"mode": "Manual"}, replicas=0))
    world.inspected()
    assert world.engine["spec"]["replicas"] == 0
    assert world.says("Ready") == "False ScaledToZero"
    assert world.says("Progressing") == "False Settled"


def test_replicas_that_stop_are_told_of_until_they_are_gone() -> None:
    world = World(deployment=a_deployment(scaling={"mode": "Manual"}, replicas=2)).serving(2)
    world.edit(replicas=1)
    world.children["Pod", "replica-1"]["metadata"]["deletionTimestamp"] = stamp(world.now_s)
    world.settle()
    assert world.says("Progressing") == "True Stopping"
    del world.children["Pod", "replica-1"]
    world.engine["status"] = {"replicas": 1, "updatedReplicas": 1}
    world.settle()
    assert world.says("Progressing") == "False Settled"


def test_manual_without_a_number_leaves_it_as_it_is() -> None:
    world = World(deployment=a_deployment(scaling={"minReplicas": 2, "maxReplicas": 2}))
    world.serving(2)
    world.edit(scaling={"mode": "Manual"})
    world.settle()
    assert world.engine["spec"]["replicas"] == 2


def test_advisory_starts_with_the_minimum_and_then_only_advises() -> None:
    world = World(
        deployment=a_deployment(scaling={"mode": "Advisory", "minReplicas": 1, "maxReplicas": 4})
    ).serving()
    world.edit(scaling={"mode": "Advisory", "minReplicas": 2, "maxReplicas": 4})
    world.settle()
    assert world.engine["spec"]["replicas"] == 1
    [advice] = world.deployment["status"]["decisions"]
    assert (advice["from"], advice["to"]) == (1, 2)
    assert advice["because"].startswith("Advice only: ")
    world.wait(60)
    assert len(world.deployment["status"]["decisions"]) == 1


def test_a_raised_minimum_brings_replicas_and_says_so() -> None:
    world = World().serving()
    world.edit(scaling={"minReplicas": 3, "maxReplicas": 3})
    world.settle()
    assert world.engine["spec"]["replicas"] == 3
    [decision] = world.deployment["status"]["decisions"]
    assert (decision["from"], decision["to"], decision["reason"]) == (1, 3, "BelowMinimum")
    assert [n.message for n in world.notes if n.reason == "ScaledUp"] == [
        "1 to 3 replicas: minReplicas is 3"
    ]


def test_a_lowered_maximum_marks_the_victims_before_it_takes_them() -> None:
    world = World(deployment=a_deployment(scaling={"minReplicas": 1, "maxReplicas": 3}))
    world.inspected()
    world.engine["spec"]["replicas"] = 3
    world.rolled_out(3)
    world.edit(scaling={"minReplicas": 1, "maxReplicas": 2})
    kinds = [type(action).__name__ for action in world.look().actions]
    assert kinds == ["SetDeletionCost"] * 3 + ["Apply"]
    assert world.engine["spec"]["replicas"] == 2


def test_without_metrics_no_replica_goes() -> None:
    world = World(deployment=a_deployment(scaling={"minReplicas": 0, "maxReplicas": 4}))
    world.inspected()
    world.engine["spec"]["replicas"] = 4
    world.rolled_out(4)
    world.wait(3600)
    assert world.engine["spec"]["replicas"] == 4
    assert world.says("MetricsAvailable").startswith("False")


def test_a_pause_stops_all_action_and_says_so() -> None:
    world = World().serving()
    world.deployment["metadata"]["annotations"] = {"llm-operator.dev/paused": "true"}
    world.engine["spec"]["replicas"] = 7
    assert world.look().actions == ()
    assert world.says("Progressing") == "False Paused"
    assert world.says("Ready") == "True Serving"
    world.deployment["metadata"]["annotations"] = {}
    world.settle()
    assert world.engine["spec"]["replicas"] == 1


def an_elder(served_name: str) -> dict[str, object]:
    elder = a_deployment("elder", "other", model={"source": "pvc://m/x", "servedName": served_name})
    elder["metadata"]["creationTimestamp"] = stamp(START_S - 60)
    return elder


def test_a_name_that_an_older_one_holds_is_a_conflict_and_nothing_is_made() -> None:
    world = World(others=[an_elder("smollm2")])
    decision = world.look()
    assert decision.actions == ()
    assert world.says("Ready") == "False NameConflict"
    assert "other/elder" in world.condition("Ready")["message"]
    world.others.clear()
    world.inspected()
    assert world.engine


def test_a_name_that_a_younger_one_claims_stays() -> None:
    younger = an_elder("smollm2")
    younger["metadata"]["creationTimestamp"] = stamp(START_S + 60)  # type: ignore[index]
    world = World(others=[younger]).serving()
    assert world.says("Ready") == "True Serving"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"model": {}}, id="no source"),
        pytest.param({"model": {"source": "http://169.254.169.254/"}}, id="a source of the host"),
        pytest.param({"scaling": {"minReplicas": "many"}}, id="a number that is none"),
        pytest.param({"quantization": "Int3"}, id="a quantization that is none"),
        pytest.param({"template": 3}, id="a template that is none"),
    ],
)
def test_a_spec_that_does_not_parse_is_refused_and_what_runs_stays(
    spec: dict[str, object],
) -> None:
    world = World().serving()
    engine = world.engine
    world.edit(**spec)
    assert world.look().actions == ()
    assert world.says("Accepted") == "False InvalidSpec"
    assert "spec." in world.condition("Accepted")["message"]
    assert world.engine is engine


def test_an_object_that_is_being_deleted_is_left_alone() -> None:
    world = World().serving()
    world.deployment["metadata"]["deletionTimestamp"] = stamp(START_S)
    world.children.clear()
    assert world.look().at_rest


def test_children_that_belong_to_an_older_namesake_are_not_ours() -> None:
    world = World().serving()
    world.engine["metadata"]["ownerReferences"][0]["uid"] = "uid-of-the-dead"
    applied = [a for a in _look_without_doing(world) if isinstance(a, Apply)]
    assert [(a.manifest["kind"], a.over) for a in applied] == [("Deployment", None)]


def _look_without_doing(world: World) -> tuple[object, ...]:
    from llm_operator.reconcile.decide import decide

    return decide(world.observe(), world.settings, world.now_s).actions


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_a_child_that_somebody_deletes_comes_back(kind: str) -> None:
    world = World().serving()
    del world.children[kind, "smollm2-engine"]
    world.settle()
    assert (kind, "smollm2-engine") in world.children
    assert f"{kind} smollm2-engine was deleted; it is made again." in [
        note.message for note in world.notes if note.reason == "Repaired"
    ]


def test_a_child_that_somebody_edits_is_put_back() -> None:
    world = World().serving()
    pod = world.engine["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = "somebody/else:1"
    world.settle()
    assert world.engine["spec"]["template"]["spec"]["containers"][0]["image"] == "llm-engine:1"
    assert [note.message for note in world.notes if note.reason == "Repaired"] == [
        "Deployment smollm2-engine was changed; it is put back."
    ]


def test_what_the_api_server_refuses_is_said() -> None:
    world = World()
    world.inspected()
    world.obstacle = Trouble("Forbidden", "cannot patch resource deployments")
    world.look()
    assert world.says("Ready") == "False Forbidden"
    world.obstacle = None
    world.rolled_out(1)
    assert world.says("Ready") == "True Serving"


def test_a_plan_that_works_is_kept_when_something_cheaper_comes() -> None:
    world = World(deployment=a_deployment(hardware={"accelerators": ["cpu", "cheap"]})).serving()
    cheap = {**world.classes[0], "metadata": {"name": "cheap"}}
    cheap["spec"] = {**cheap["spec"], "price": {"perHour": "0.01"}}
    world.classes.append(cheap)
    assert world.look().at_rest
    world.edit(targets={"maxCostPerHour": "1"})
    world.settle()
    assert world.deployment["status"]["plan"]["accelerator"] == "cheap"


def test_a_class_that_vanishes_leaves_the_replicas_and_their_scaling() -> None:
    world = World(deployment=a_deployment(scaling={"minReplicas": 1, "maxReplicas": 4})).serving()
    world.classes.clear()
    world.settle()
    assert world.says("Progressing") == "False NoAccelerator"
    assert world.says("Ready") == "True Serving"
    world.edit(scaling={"minReplicas": 2, "maxReplicas": 4})
    world.settle()
    assert world.engine["spec"]["replicas"] == 2
