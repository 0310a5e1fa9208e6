"""One LLMDeployment on a real API server, and the kubelet that a test plays for its pods."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.cluster.operator.kube import GROUP, Json, Kube, eventually

REPORT = {
    "shape": {
        "architecture": "llama", "layers": 30, "hidden_size": 576, "intermediate_size": 1536,
        "query_heads": 9, "kv_heads": 3, "head_dim": 64, "vocabulary": 49152,
        "context_tokens": 8192, "tied_embeddings": True,
    },
    "file_bytes": 98_000_000,
    "file_format": "gguf",
}  # fmt: skip


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Model:
    """An LLMDeployment and what belongs to it."""

    kube: Kube
    namespace: str
    name: str

    @property
    def path(self) -> str:
        return f"{GROUP}/namespaces/{self.namespace}/llmdeployments/{self.name}"

    def child_path(self, plural: str) -> str:
        root = {
            "services": "/api/v1", "deployments": "/apis/apps/v1",
            "poddisruptionbudgets": "/apis/policy/v1",
            "networkpolicies": "/apis/networking.k8s.io/v1",
        }[plural]  # fmt: skip
        return f"{root}/namespaces/{self.namespace}/{plural}/{self.name}-engine"

    def applied(self, **spec: Any) -> "Model":
        manifest = {
            "apiVersion": "llm-operator.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "model": {"source": "pvc://models/smollm2", "maxContextTokens": 2048},
                "hardware": {"accelerators": ["cpu"]},
                **spec,
            },
        }
        self.kube.apply(self.path, manifest)
        return self

    def child(self, plural: str) -> Json | None:
        return self.kube.get(self.child_path(plural))

    def all_of(self, plural: str, root: str = "/api/v1") -> list[Json]:
        selector = f"llm-operator.dev%2Fdeployment%3D{self.name}"
        return self.kube.list(
            f"{root}/namespaces/{self.namespace}/{plural}?labelSelector={selector}"
        )

    def jobs(self) -> list[Json]:
        return self.all_of("jobs", "/apis/batch/v1")

    def pods(self, component: str) -> list[Json]:
        return [
            pod
            for pod in self.all_of("pods")
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]

    def seen(self) -> Json:
        return self.kube.ask("GET", self.path)

    def says(self, kind: str) -> str:
        conditions = self.seen()["status"]["conditions"]
        found = next(c for c in conditions if c["type"] == kind)
        return f"{found['status']} {found['reason']}"

    def message(self, kind: str) -> str:
        conditions = self.seen()["status"]["conditions"]
        return str(next(c for c in conditions if c["type"] == kind)["message"])

    def wait_for(self, kind: str, says: str, within_s: float = 20.0) -> None:
        eventually(lambda: self.says(kind) == says, within_s, f"{kind}: {says}")

    def events(self, reason: str) -> list[Json]:
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        return [
            event
            for event in self.kube.list(path)
            if event["regarding"].get("name") == self.name and event["reason"] == reason
        ]

    # The kubelet's part

    def set_pod(self, pod: Json, status: Json) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/status"
        self.kube.merge(path, {"status": status})

    def end_inspection(self, report: object = REPORT) -> None:
        """Let the newest inspect pod end with this report."""
        pod = eventually(lambda: self.pods("inspect"), why="an inspect pod")[-1]
        text = report if isinstance(report, str) else json.dumps(report)
        ended = {"exitCode": 0, "message": text, "startedAt": _now(), "finishedAt": _now()}
        container = {
            "name": "inspect", "image": "i", "imageID": "i", "ready": False, "restartCount": 0,
            "state": {"terminated": ended},
        }  # fmt: skip
        self.set_pod(pod, {"phase": "Succeeded", "containerStatuses": [container]})

    def make_ready(self, pod: Json) -> None:
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": _now()}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        container = {
            "name": "engine", "image": "i", "imageID": "i", "ready": True, "restartCount": 0,
            "state": {"running": {"startedAt": _now()}},
        }  # fmt: skip
        self.set_pod(
            pod,
            {"phase": "Running", "conditions": conditions, "containerStatuses": [container]},
        )

    def launched(self) -> "Model":
        """Bring it to where its replicas are being started."""
        self.end_inspection()
        eventually(lambda: self.pods("engine"), why="an engine pod")
        return self

    def serving(self) -> "Model":
        """Bring it to where it answers."""
        self.launched()
        for pod in self.pods("engine"):
            self.make_ready(pod)
        self.wait_for("Ready", "True Serving")
        self.wait_for("Progressing", "False Settled")
        return self
