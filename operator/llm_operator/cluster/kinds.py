"""The kinds of objects that the operator reads or writes, and where the API server keeps them."""

from dataclasses import dataclass
from typing import Any, Final

from llm_operator.api import names


@dataclass(frozen=True)
class Kind:
    """One kind of object. `api_version` is `v1` for the core group, else group/version."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        group, _, version = self.api_version.partition("/")
        return group if version else ""

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the path of one object, or of the collection where no name is given."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        if namespace is not None and self.namespaced:
            root += f"/namespaces/{namespace}"
        return f"{root}/{self.plural}" + (f"/{name}" if name else "")


LLM_DEPLOYMENT: Final = Kind(names.API_VERSION, names.DEPLOYMENT_KIND, names.DEPLOYMENT_PLURAL)
ACCELERATOR_CLASS: Final = Kind(
    names.API_VERSION, names.ACCELERATOR_KIND, names.ACCELERATOR_PLURAL, namespaced=False
)
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
SERVICE: Final = Kind("v1", "Service", "services")
POD: Final = Kind("v1", "Pod", "pods")
NODE: Final = Kind("v1", "Node", "nodes", namespaced=False)
JOB: Final = Kind("batch/v1", "Job", "jobs")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY: Final = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENT: Final = Kind("events.k8s.io/v1", "Event", "events")

CHILDREN: Final = (DEPLOYMENT, SERVICE, POD, JOB, DISRUPTION_BUDGET, NETWORK_POLICY)
"""Kinds found by our label; an LLMDeployment owns every one of them, pods through another."""

WATCHED: Final = (LLM_DEPLOYMENT, ACCELERATOR_CLASS, *CHILDREN)

_BY_NAME: Final = {(kind.api_version, kind.name): kind for kind in (*WATCHED, NODE, LEASE, EVENT)}


def kind_of(obj: dict[str, Any]) -> Kind:
    """Return the kind of a raw object. Raises KeyError for a kind that is not ours."""
    return _BY_NAME[obj["apiVersion"], obj["kind"]]


def kind_named(api_version: str, name: str) -> Kind:
    """Return the kind of this name. Raises KeyError for a kind that is not ours."""
    return _BY_NAME[api_version, name]
