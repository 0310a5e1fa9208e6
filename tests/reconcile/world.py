"""A cluster as small as `decide` needs it: objects in a dict, pods that do what the story says."""

import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llm_engine.contract.inspection import Failure, FailureReason, Inspection
from llm_engine.contract.shape import ModelShape
from llm_operator.api import names
from llm_operator.api.parsing import parse_accelerator_class
from llm_operator.api.served_names import claim_of, name_owners
from llm_operator.reconcile.decide import decide
from llm_operator.reconcile.decision import Apply, Decision, Delete, Scale, SetDeletionCost
from llm_operator.reconcile.identity import selector_labels
from llm_operator.reconcile.notes import Note
from llm_operator.reconcile.observed import EngineSettings, Observed
from llm_operator.reconcile.pods import pod_of
from llm_operator.reconcile.trouble import Trouble
from llm_operator.scaling import Samples, ScalingState

Json = dict[str, Any]

START_S = 1_800_000_000.0

SHAPE = ModelShape(
    architecture="llama",
    layers=30,
    hidden_size=576,
    intermediate_size=1536,
    query_heads=9,
    kv_heads=3,
    head_dim=64,
    vocabulary=49152,
    context_tokens=8192,
    tied_embeddings=True,
)


def stamp(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def a_deployment(name: str = "smollm2", namespace: str = "demo", **spec: Any) -> Json:
    """Return a raw LLMDeployment; keyword arguments are fields of its spec."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-of-{name}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": stamp(START_S),
        },
        "spec": {
            "model": {"source": "pvc://models/smollm2"},
            "hardware": {"accelerators": ["cpu"]},
            **spec,
        },
    }


def a_class(name: str = "cpu", **spec: Any) -> Json:
    """Return a raw AcceleratorClass, by default the CPU with 4 GiB at 0.05 per hour."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.ACCELERATOR_KIND,
        "metadata": {"name": name, "uid": f"uid-of-{name}"},
        "spec": {"resourceName": "cpu", "memory": "4Gi", "price": {"perHour": "0.05"}, **spec},
        "status": {"nodes": 1},
    }


@dataclass
class World:
    """One LLMDeployment and its children; time moves only when the story says so."""

    deployment: Json = field(default_factory=a_deployment)
    classes: list[Json] = field(default_factory=lambda: [a_class()])
    settings: EngineSettings = field(default_factory=lambda: EngineSettings(image="llm-engine:1"))
    others: list[Json] = field(default_factory=list)
    now_s: float = START_S
    children: dict[tuple[str, str], Json] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples.none)
    scaling: ScalingState | None = None
    obstacle: Trouble | None = None
    reported_s: float | None = None
    notes: list[Note] = field(default_factory=list)
    reports: int = 0
    version: int = 1

    def observe(self) -> Observed:
        objects = list(self.children.values())
        claims = (claim_of(raw) for raw in [*self.others, self.deployment])
        owners = name_owners(claim for claim in claims if claim)
        model = self.deployment["spec"].get("model") or {}
        served = model.get("servedName") or self.deployment["metadata"]["name"]
        return Observed(
            deployment=copy.deepcopy(self.deployment),
            children=tuple(copy.deepcopy(o) for o in objects if o["kind"] != "Pod"),
            pods=tuple(pod_of(o) for o in objects if o["kind"] == "Pod"),
            accelerators=tuple(parse_accelerator_class(raw) for raw in self.classes),
            name_owner=owners.get(served),
            obstacle=self.obstacle,
            samples=self.samples,
            scaling=self.scaling,
            reported_s=self.reported_s,
        )

    def look(self) -> Decision:
        """Decide, and let the cluster do what was decided."""
        decision = decide(self.observe(), self.settings, self.now_s)
        for action in decision.actions:
            self._do(action)
        if decision.status is not None:
            self.deployment["status"] = json.loads(json.dumps(decision.status))
            self.reported_s = self.now_s
            self.reports += 1
        if decision.scaled:
            self.scaling = decision.scaled.state
        self.notes += decision.notes
        return decision

    def settle(self) -> int:
        """Look until nothing is left to do; return how many looks did something."""
        for looks in range(10):
            if self.look().at_rest:
                return looks
        raise AssertionError("ten looks, and still not at rest")

    def wait(self, seconds: float) -> None:
        """Let time pass, with a look each five seconds as in the operator."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + 5, end_s)
            self.look()

    def edit(self, **spec: Any) -> None:
        """Change fields of the spec as a user would."""
        self.deployment["spec"] |= spec
        self.deployment["metadata"]["generation"] += 1

    def _do(self, action: object) -> None:
        self.version += 1
        match action:
            case Apply(manifest, over):
                key = (manifest["kind"], manifest["metadata"]["name"])
                assert (over is None) == (key not in self.children), "decided on something stale"
                old = self.children.get(key, {})
                fresh = copy.deepcopy(manifest)
                fresh["metadata"] |= {
                    "uid": old.get("metadata", {}).get("uid", f"uid-{self.version}"),
                    "resourceVersion": str(self.version),
                }
                fresh["status"] = old.get("status", {})
                self.children[key] = fresh
            case Delete(seen):
                del self.children[seen["kind"], seen["metadata"]["name"]]
            case Scale(seen, replicas):
                found = self.children[seen["kind"], seen["metadata"]["name"]]
                found["spec"]["replicas"] = replicas
            case SetDeletionCost(pod, _, cost):
                metadata = self.children["Pod", pod]["metadata"]
                metadata.setdefault("annotations", {})[names.POD_DELETION_COST_ANNOTATION] = str(
                    cost
                )

    # What users look at

    def condition(self, kind: str) -> Json:
        conditions = self.deployment["status"]["conditions"]
        return next(c for c in conditions if c["type"] == kind)

    def says(self, kind: str) -> str:
        condition = self.condition(kind)
        return f"{condition['status']} {condition['reason']}"

    @property
    def engine(self) -> Json:
        return self.children["Deployment", f"{self.deployment['metadata']['name']}-engine"]

    def of_kind(self, kind: str) -> list[Json]:
        return [child for (k, _), child in self.children.items() if k == kind]

    # What the cluster does

    def a_pod(self, name: str, component: str = names.ENGINE_COMPONENT, **status: Any) -> Json:
        owner = self.of_kind("Job")[-1:] if component == names.INSPECT_COMPONENT else []
        owner_uid = owner[0]["metadata"]["uid"] if owner else "uid-of-a-replica-set"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": self.deployment["metadata"]["namespace"],
                "uid": f"uid-of-{name}",
                "labels": selector_labels(self.deployment["metadata"]["name"], component),
                "creationTimestamp": stamp(self.now_s),
                "ownerReferences": [{"uid": owner_uid, "controller": True}],
            },
            "status": status,
        }
        # The label says whose it is; that its owner is a ReplicaSet must not hide it.
        self.children["Pod", name] = pod
        return pod

    def ready_pod(self, name: str) -> Json:
        return self.a_pod(
            name,
            podIP="10.0.0.1",
            conditions=[
                {"type": t, "status": "True", "lastTransitionTime": stamp(self.now_s + after_s)}
                for t, after_s in (("PodScheduled", 1), ("Ready", 30))
            ],
            containerStatuses=[
                {
                    "name": "engine",
                    "ready": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": stamp(self.now_s + 4)}},
                }
            ],
        )

    def end_inspection(self, message: str, exit_code: int = 0) -> None:
        """Let the newest inspect pod end with this termination message."""
        job = self.of_kind("Job")[-1]
        self.a_pod(
            f"{job['metadata']['name']}-pod",
            names.INSPECT_COMPONENT,
            phase="Succeeded" if exit_code == 0 else "Failed",
            containerStatuses=[
                {
                    "name": "inspect",
                    "ready": False,
                    "state": {
                        "terminated": {
                            "exitCode": exit_code,
                            "message": message,
                            "finishedAt": stamp(self.now_s),
                        }
                    },
                }
            ],
        )

    def inspected(self) -> None:
        """Let the inspection end well, and the operator act on it."""
        self.settle()
        report = Inspection(shape=SHAPE, file_bytes=98_000_000, file_format="gguf")
        self.end_inspection(report.model_dump_json(exclude_none=True))
        self.settle()

    def rolled_out(self, replicas: int) -> None:
        """Let Kubernetes run as many replicas as asked."""
        self.engine["status"] = {"replicas": replicas, "updatedReplicas": replicas}
        for number in range(replicas):
            self.ready_pod(f"replica-{number}")
        self.settle()

    def serving(self, replicas: int = 1) -> "World":
        """Bring the model to where it answers."""
        self.inspected()
        self.rolled_out(replicas)
        return self


def a_failure(reason: FailureReason, message: str) -> str:
    report = Inspection(failure=Failure(reason=reason, message=message))
    return report.model_dump_json(exclude_none=True)
