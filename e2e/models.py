"""LLMDeployments as kubectl shows them: what the demo and the stories look at."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.kubectl import Kubectl, Object, eventually

EXAMPLE: Final = Path(__file__).resolve().parents[1] / "docs" / "examples" / "smollm2.yaml"
LABEL: Final = "llm-operator.dev/deployment"
ENGINE: Final = "app.kubernetes.io/component=engine"


def example() -> Object:
    """Return the LLMDeployment of docs/examples."""
    return dict(yaml.safe_load(EXAMPLE.read_text()))


def condition(model: Object | None, kind: str = "Ready") -> Object:
    """Return a condition; an empty status while the operator has not set it."""
    found = ((model or {}).get("status") or {}).get("conditions", [])
    return next(
        (c for c in found if c["type"] == kind), {"status": "", "reason": "", "message": ""}
    )


@dataclass(frozen=True)
class Model:
    """One LLMDeployment in the cluster."""

    kubectl: Kubectl
    namespace: str
    name: str

    def seen(self) -> Object | None:
        """Return the object, or None where it is gone."""
        return self.kubectl.get("llmdeployment", self.name, self.namespace)

    def status(self) -> dict[str, Any]:
        """Return the status; empty while there is none."""
        return dict((self.seen() or {}).get("status") or {})

    def patch(self, **spec: Any) -> None:
        """Merge changes into the spec."""
        self.kubectl.patch("llmdeployment", self.name, self.namespace, {"spec": spec})

    def pods(self) -> list[Object]:
        """Return the engine pods, those on their way out included."""
        return self.kubectl.list("pods", self.namespace, f"{LABEL}={self.name},{ENGINE}")

    def ready_pods(self) -> list[Object]:
        """Return the engine pods that are ready and stay."""
        return [pod for pod in self.pods() if is_ready(pod) and not leaving(pod)]

    def wait(self, what: str, look: Callable[[], Any], timeout_s: float) -> Any:
        """Wait until `look` sees something true; the failure shows this model's Ready."""
        try:
            return eventually(what, look, timeout_s)
        except Exception as error:
            error.add_note(f"Ready of {self.name}: {condition(self.seen())}")
            raise

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until Ready is true of the spec as it is now."""

        def ready() -> bool:
            seen = self.seen() or {}
            found = condition(seen)
            current = found.get("observedGeneration") == seen["metadata"]["generation"]
            return bool(found["status"] == "True") and current

        self.wait(f"{self.name} is Ready", ready, timeout_s)

    def wait_replicas(self, count: int, timeout_s: float) -> None:
        """Wait until exactly `count` replicas run and all are ready."""

        def settled() -> bool:
            return len(self.pods()) == len(self.ready_pods()) == count

        self.wait(f"{self.name} has {count} ready replicas", settled, timeout_s)


def is_ready(pod: Object) -> bool:
    """Whether a pod's readiness probe passes."""
    found = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)


def leaving(pod: Object) -> bool:
    """Whether a pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]
