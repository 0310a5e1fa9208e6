"""Names, labels and ownership of everything that belongs to an LLMDeployment."""

from typing import Any, Final, TypeAlias

from llm_operator.api import names
from llm_operator.api.parsing import Metadata

Json: TypeAlias = dict[str, Any]

_NAME_LABEL: Final = "app.kubernetes.io/name"
_INSTANCE_LABEL: Final = "app.kubernetes.io/instance"


def engine_name(deployment: str) -> str:
    """Return the name of the Deployment, Service and budget of the replicas."""
    return f"{deployment}-engine"


def inspect_prefix(deployment: str) -> str:
    """Return what the names of all inspect Jobs begin with."""
    return f"{deployment}-inspect-"


def selector_labels(deployment: str, component: str) -> dict[str, str]:
    """Return the labels by which pods of one component are found; they never change."""
    return {names.DEPLOYMENT_LABEL: deployment, names.COMPONENT_LABEL: component}


def labels(deployment: str, component: str) -> dict[str, str]:
    """Return the labels of a child."""
    return {
        **selector_labels(deployment, component),
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        _NAME_LABEL: f"llm-{component}",
        _INSTANCE_LABEL: deployment,
    }


def selector_text(deployment: str) -> str:
    """Return the selector of the replicas' pods as the scale subresource wants it."""
    wanted = selector_labels(deployment, names.ENGINE_COMPONENT)
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def child_metadata(owner: Metadata, name: str, component: str) -> Json:
    """Return the metadata of a child; deleting the LLMDeployment takes the child with it."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels(owner.name, component),
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.DEPLOYMENT_KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": False,  # deletion never waits for us or for a child
            }
        ],
    }


def owned_by(child: Json, owner_uid: str) -> bool:
    """Tell whether the object with this uid controls the child."""
    owners = child.get("metadata", {}).get("ownerReferences") or ()
    return any(o.get("uid") == owner_uid and o.get("controller") for o in owners)
