"""The CustomResourceDefinitions: names, scope, columns, subresources, and the schemas within."""

from typing import Any, Final

from llm_operator.api import names
from llm_operator.api.accelerator import AcceleratorClassSpec, AcceleratorClassStatus
from llm_operator.api.deployment_spec import LLMDeploymentSpec
from llm_operator.api.deployment_status import LLMDeploymentStatus
from llm_operator.api.rules import Rule, rules
from llm_operator.api.structural import Schema, structural_schema

MAX_NAME_LENGTH: Final = 40
_NAME: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"  # DNS-1035: the Service of the replicas bears it

_DEPLOYMENT_NAME_RULE: Final = Rule(
    f"size(self.metadata.name) <= {MAX_NAME_LENGTH} && self.metadata.name.matches('{_NAME}')",
    f"metadata.name must be at most {MAX_NAME_LENGTH} lower-case letters, digits and -, begin with"
    " a letter and end with a letter or digit",
    "self.metadata.name",
)


def _column(name: str, json_path: str, kind: str = "string", priority: int = 0) -> Schema:
    return {"name": name, "type": kind, "jsonPath": json_path, "priority": priority}


_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_AGE: Final = _column("Age", ".metadata.creationTimestamp", "date")
_DEPLOYMENT_COLUMNS: Final = [
    _column("Ready", f"{_READY}.status"),
    _column("Reason", f"{_READY}.reason"),
    _column("Model", ".spec.model.source", priority=1),
    _column("Quant", ".spec.quantization", priority=1),
    _column("Accelerator", ".status.plan.accelerator"),
    _column("Replicas", ".status.readyReplicas", "integer"),
    _column("TTFT", ".status.observed.timeToFirstToken"),
    _column("TPOT", ".status.observed.timePerOutputToken"),
    _column("$/h", ".status.observed.costPerHour"),
    _AGE,
]
_ACCELERATOR_COLUMNS: Final = [
    _column("Resource", ".spec.resourceName"),
    _column("Count", ".spec.count", "integer"),
    _column("Memory", ".spec.memory"),
    _column("$/h", ".spec.price.perHour"),
    _column("Nodes", ".status.nodes", "integer"),
    _column("Total", ".status.total", "integer"),
    _column("Free", ".status.free", "integer"),
    _AGE,
]


def deployment_definition() -> Schema:
    """Return the CustomResourceDefinition of LLMDeployment."""
    schema = _object_schema(
        "A language model to be served, how well, and for how much.",
        structural_schema(LLMDeploymentSpec),
        structural_schema(LLMDeploymentStatus, refuses=False),
    )
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    return _definition(
        kind=names.DEPLOYMENT_KIND,
        plural=names.DEPLOYMENT_PLURAL,
        short_name="llmd",
        scope="Namespaced",
        columns=_DEPLOYMENT_COLUMNS,
        subresources={"status": {}, "scale": scale},
        schema=schema | rules(_DEPLOYMENT_NAME_RULE),
    )


def accelerator_definition() -> Schema:
    """Return the CustomResourceDefinition of AcceleratorClass."""
    return _definition(
        kind=names.ACCELERATOR_KIND,
        plural=names.ACCELERATOR_PLURAL,
        short_name="accel",
        scope="Cluster",
        columns=_ACCELERATOR_COLUMNS,
        subresources={"status": {}},
        schema=_object_schema(
            "One kind of hardware that a replica can run on, and what it costs.",
            structural_schema(AcceleratorClassSpec),
            structural_schema(AcceleratorClassStatus, refuses=False),
        ),
    )


def definitions() -> dict[str, Schema]:
    """Return every CustomResourceDefinition by its plural name."""
    return {
        names.DEPLOYMENT_PLURAL: deployment_definition(),
        names.ACCELERATOR_PLURAL: accelerator_definition(),
    }


def _object_schema(description: str, spec: Schema, status: Schema) -> Schema:
    return {
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def _definition(
    *,
    kind: str,
    plural: str,
    short_name: str,
    scope: str,
    columns: list[Schema],
    subresources: dict[str, Any],
    schema: Schema,
) -> Schema:
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "subresources": subresources,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short_name],
                "categories": ["all", "ai"],
            },
            "scope": scope,
            "versions": [version],
        },
    }
