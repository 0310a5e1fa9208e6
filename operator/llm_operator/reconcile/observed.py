"""Everything a decision about one LLMDeployment may look at, observed once and up front."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llm_operator.api.parsing import AcceleratorClass
from llm_operator.api.served_names import NameClaim
from llm_operator.reconcile.pods import Pod
from llm_operator.reconcile.trouble import Trouble
from llm_operator.scaling import Samples, ScalingState

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class EngineSettings:
    """What every replica has in common, from the operator's command line.

    namespace         where operator and gateways run
    restrict_traffic  whether a NetworkPolicy lets only those two speak to a replica
    """

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    namespace: str = "llm-operator"
    restrict_traffic: bool = False


@dataclass(frozen=True)
class Observed:
    """One LLMDeployment and all that belongs to it.

    deployment    the raw object: a spec that does not parse is a case, not a crash
    children      raw objects that carry its label: Deployment, Service, Job ...; no pods
    name_owner    who holds the served name; None: nobody, for it is being deleted
    obstacle      why the last attempt to act failed, from the API server's answer
    samples       what engines and gateways said of their load
    scaling       what the scaling law remembers; None: take it from status
    reported_s    Unix time at which measurements were last written to status by this process
    """

    deployment: Json
    children: tuple[Json, ...] = ()
    pods: tuple[Pod, ...] = ()
    accelerators: tuple[AcceleratorClass, ...] = ()
    name_owner: NameClaim | None = None
    obstacle: Trouble | None = None
    samples: Samples = field(default_factory=Samples.none)
    scaling: ScalingState | None = None
    reported_s: float | None = None

    def child(self, kind: str, name: str) -> Json | None:
        """Return the child of this kind and name."""
        return next((c for c in self.of_kind(kind) if c["metadata"]["name"] == name), None)

    def of_kind(self, kind: str) -> Iterable[Json]:
        """Yield the children of one kind."""
        return (child for child in self.children if child["kind"] == kind)
