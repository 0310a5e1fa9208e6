"""Which nodes have the hardware, and how many replicas they could hold."""

from fractions import Fraction
from typing import Any

import pytest

from llm_operator.api.accelerator import AcceleratorClassSpec
from llm_operator.planner.inventory import Node, count_nodes

GPU = "nvidia.com/gpu"
TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


def a_class(**parts: Any) -> AcceleratorClassSpec:
    return AcceleratorClassSpec.model_validate({"resourceName": GPU, **parts})


def a_node(**parts: Any) -> dict[str, Any]:
    labels, taints = parts.get("labels", {}), parts.get("taints", [])
    ready = "True" if parts.get("ready", True) else "False"
    return {
        "metadata": {"name": "n", "labels": labels},
        "spec": {"taints": taints, "unschedulable": parts.get("cordoned", False)},
        "status": {
            "allocatable": {GPU: parts.get("gpus", "4"), "cpu": "15890m"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def a_pod(gpus: str, node: str = "n", phase: str = "Running") -> dict[str, Any]:
    return {
        "spec": {"nodeName": node, "containers": [{"resources": {"requests": {GPU: gpus}}}]},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("spec", "node", "nodes"),
    [
        (a_class(), a_node(), 1),
        (a_class(), a_node(gpus="0"), 0),
        (a_class(count=8), a_node(), 0),
        (a_class(), a_node(ready=False), 0),
        (a_class(), a_node(cordoned=True), 0),
        (a_class(nodeSelector={"gpu": "l4"}), a_node(), 0),
        (a_class(nodeSelector={"gpu": "l4"}), a_node(labels={"gpu": "l4"}), 1),
        (a_class(), a_node(taints=[TAINT]), 0),
        (a_class(), a_node(taints=[TAINT | {"effect": "PreferNoSchedule"}]), 1),
        (a_class(tolerations=[{"operator": "Exists"}]), a_node(taints=[TAINT]), 1),
        (a_class(tolerations=[{"key": GPU, "operator": "Exists"}]), a_node(taints=[TAINT]), 1),
        (a_class(tolerations=[{"key": "other", "operator": "Exists"}]), a_node(taints=[TAINT]), 0),
        (a_class(tolerations=[{"key": GPU, "value": "present"}]), a_node(taints=[TAINT]), 1),
        (a_class(tolerations=[{"key": GPU, "value": "other"}]), a_node(taints=[TAINT]), 0),
        (
            a_class(tolerations=[{"key": GPU, "operator": "Exists", "effect": "NoExecute"}]),
            a_node(taints=[TAINT]),
            0,
        ),
        (a_class(), {}, 0),
    ],
    ids=[
        "a node with the resource",
        "one without",
        "one with too few for a replica",
        "one that is not ready",
        "one that is cordoned",
        "one without the label",
        "one with the label",
        "a taint that is not tolerated",
        "a taint that only prefers",
        "every taint tolerated",
        "the taint's key tolerated",
        "another key tolerated",
        "the taint's value tolerated",
        "another value tolerated",
        "another effect tolerated",
        "an odd node",
    ],
)
def test_a_node_counts(spec: AcceleratorClassSpec, node: dict[str, Any], nodes: int) -> None:
    assert count_nodes(spec, [Node.of(node)]).nodes == nodes


def test_total_and_free_count_replicas() -> None:
    pods = [a_pod("1"), a_pod("1", node="other"), a_pod("2", phase="Succeeded")]
    node = Node.of(a_node(), pods)

    status = count_nodes(a_class(count=2), [node, Node.of(a_node(gpus="5"), ())])

    assert (status.nodes, status.total, status.free) == (2, 4, 3)


def test_free_is_unknown_where_pods_were_not_counted() -> None:
    status = count_nodes(a_class(), [Node.of(a_node(), ()), Node.of(a_node())])

    assert (status.total, status.free) == (8, None)


def test_cores_count_for_the_cpu() -> None:
    status = count_nodes(AcceleratorClassSpec(resource_name="cpu"), [Node.of(a_node())])

    assert (status.nodes, status.total) == (1, 15)


def test_an_overcommitted_node_has_nothing_free() -> None:
    assert count_nodes(a_class(), [Node.of(a_node(), [a_pod("9")])]).free == 0


def test_an_amount_in_a_form_we_do_not_read_counts_as_nothing() -> None:
    node = Node.of(a_node(gpus="1e3"), [a_pod("1e3")])

    assert node.requested == {GPU: Fraction(0)}
    assert count_nodes(a_class(), [node]).nodes == 0
