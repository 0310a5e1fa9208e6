"""What stands around the replicas: their Service, their disruption budget, their NetworkPolicy."""

from typing import Any, Final, TypeAlias

from llm_engine.contract.arguments import DEFAULT_PORT
from llm_operator.api import names
from llm_operator.api.parsing import Metadata
from llm_operator.reconcile.identity import child_metadata, engine_name, selector_labels
from llm_operator.reconcile.observed import EngineSettings

Json: TypeAlias = dict[str, Any]

SERVICE_PORT: Final = 80


def service_manifest(owner: Metadata) -> Json:
    """Return the Service: for a direct curl, and for EndpointSlices that gateways watch."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(owner, engine_name(owner.name), names.ENGINE_COMPONENT),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_labels(owner.name, names.ENGINE_COMPONENT),
            "ports": [
                {
                    "name": names.ENGINE_PORT_NAME,
                    "port": SERVICE_PORT,
                    "targetPort": names.ENGINE_PORT_NAME,
                    "protocol": "TCP",
                }
            ],
        },
    }


def budget_manifest(owner: Metadata) -> Json:
    """Return the disruption budget: one replica at a time, and a sick one never blocks a drain."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(owner, engine_name(owner.name), names.ENGINE_COMPONENT),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector_labels(owner.name, names.ENGINE_COMPONENT)},
        },
    }


def policy_manifest(owner: Metadata, settings: EngineSettings) -> Json:
    """Return the NetworkPolicy: only gateways and the operator speak to our pods."""
    callers = {
        "key": names.COMPONENT_LABEL,
        "operator": "In",
        "values": [names.GATEWAY_COMPONENT, names.OPERATOR_COMPONENT],
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child_metadata(owner, engine_name(owner.name), names.ENGINE_COMPONENT),
        "spec": {
            "podSelector": {"matchLabels": {names.DEPLOYMENT_LABEL: owner.name}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": settings.namespace}
                            },
                            "podSelector": {"matchExpressions": [callers]},
                        }
                    ],
                    "ports": [{"port": DEFAULT_PORT, "protocol": "TCP"}],
                }
            ],
        },
    }
