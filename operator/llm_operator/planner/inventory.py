"""What of each AcceleratorClass the cluster has: nodes, and replicas that they could hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from llm_operator.api.accelerator import AcceleratorClassSpec, AcceleratorClassStatus
from llm_operator.api.pod_template import Toleration
from llm_operator.api.scalars import quantity

_NOT_ALIVE = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Node:
    """What of a node decides whether a replica can run there.

    allocatable  amount of each resource, as the node reports it
    requested    amount of each resource that its pods ask for; None where nobody has counted
    """

    labels: Mapping[str, str]
    taints: tuple[Mapping[str, Any], ...]
    allocatable: Mapping[str, str]
    requested: Mapping[str, Fraction] | None
    ready: bool
    schedulable: bool

    @classmethod
    def of(cls, raw: Mapping[str, Any], pods: Iterable[Mapping[str, Any]] | None = None) -> Self:
        """Read a raw Node and, where given, the raw Pods of the cluster."""
        spec, status = raw.get("spec") or {}, raw.get("status") or {}
        metadata = raw.get("metadata") or {}
        conditions = status.get("conditions") or []
        return cls(
            labels=metadata.get("labels") or {},
            taints=tuple(spec.get("taints") or ()),
            allocatable=status.get("allocatable") or {},
            requested=None if pods is None else _requested(metadata.get("name"), pods),
            ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions),
            schedulable=not spec.get("unschedulable", False),
        )


def count_nodes(spec: AcceleratorClassSpec, nodes: Iterable[Node]) -> AcceleratorClassStatus:
    """Count the ready nodes that have the hardware, and the replicas that they could hold.

    Only the accelerator is counted, not CPU or memory beside it. `free` is None where some node's
    pods have not been counted.
    """
    having = [node for node in nodes if _has(spec, node)]
    free: int | None = 0
    for node in having:
        if node.requested is None or free is None:
            free = None
        else:
            taken = node.requested.get(spec.resource_name, Fraction(0))
            left = max(Fraction(0), _amount(node, spec.resource_name) - taken)
            free += int(left // spec.count)
    return AcceleratorClassStatus(
        nodes=len(having),
        total=sum(int(_amount(node, spec.resource_name) // spec.count) for node in having),
        free=free,
    )


def _has(spec: AcceleratorClassSpec, node: Node) -> bool:
    labelled = all(node.labels.get(key) == value for key, value in spec.node_selector.items())
    borne = all(
        any(_tolerates(toleration, taint) for toleration in spec.tolerations)
        for taint in node.taints
        if taint.get("effect") != "PreferNoSchedule"
    )
    enough = _amount(node, spec.resource_name) >= spec.count
    return node.ready and node.schedulable and labelled and borne and enough


def _tolerates(toleration: Toleration, taint: Mapping[str, Any]) -> bool:
    if toleration.effect and toleration.effect.value != taint.get("effect"):
        return False
    if toleration.key is None:
        return True
    if toleration.key != taint.get("key"):
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == (taint.get("value") or "")


def _amount(node: Node, resource_name: str) -> Fraction:
    return _quantity_or_none(node.allocatable.get(resource_name)) or Fraction(0)


def _requested(node_name: str | None, pods: Iterable[Mapping[str, Any]]) -> dict[str, Fraction]:
    """Sum what the pods that run on a node ask for; their init containers are left out."""
    total: dict[str, Fraction] = {}
    for pod in pods:
        spec, phase = pod.get("spec") or {}, (pod.get("status") or {}).get("phase")
        if spec.get("nodeName") != node_name or phase in _NOT_ALIVE:
            continue
        for container in spec.get("containers") or ():
            asked = (container.get("resources") or {}).get("requests") or {}
            for name, text in asked.items():
                amount = _quantity_or_none(text) or Fraction(0)
                total[name] = total.get(name, Fraction(0)) + amount
    return total


def _quantity_or_none(text: object) -> Fraction | None:
    """Return a quantity that somebody else wrote; None where it is absent or in a rare form."""
    try:
        return quantity(str(text)) if text is not None else None
    except ValueError:
        return None
