"""What the operator makes of an LLMDeployment on a real API server, with the chart's rights."""

import time
import zlib

import pytest

from e2e.cluster.api_server import ApiServer
from tests.cluster.operator.kube import GROUP, Kube, eventually
from tests.cluster.operator.model import Model
from tests.cluster.operator.process import Operator
from tests.cluster.operator.writes import writes_since

pytestmark = pytest.mark.cluster

Shared = tuple[Operator, str]


@pytest.fixture
def model(kube: Kube, shared: Shared, request: pytest.FixtureRequest) -> Model:
    """An LLMDeployment of the shared operator, named after the test."""
    name = f"m{zlib.crc32(request.node.name.encode())}"
    return Model(kube, shared[1], name)


def test_a_spec_becomes_a_serving_model(model: Model) -> None:
    model.applied()
    eventually(
        lambda: model.jobs() and model.child("services") and model.child("poddisruptionbudgets")
    )
    model.wait_for("Ready", "False Inspecting")
    assert len(model.seen()["status"]["conditions"]) == 8
    model.serving()
    status = model.seen()["status"]
    assert status["model"]["architecture"] == "llama"
    assert status["plan"]["accelerator"] == "cpu"
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert model.child("networkpolicies")
    eventually(lambda: model.jobs() == [], why="the inspect Job is tidied away")
    eventually(lambda: model.events("Ready") and model.events("Planned"))


@pytest.mark.parametrize(
    "plural", ["deployments", "services", "poddisruptionbudgets", "networkpolicies"]
)
def test_a_child_that_is_deleted_comes_back(model: Model, plural: str) -> None:
    model.applied().serving()
    before = model.child(plural)
    assert before
    model.kube.delete(model.child_path(plural))
    eventually(
        lambda: (model.child(plural) or before)["metadata"]["uid"] != before["metadata"]["uid"],
        within_s=5,
        why="back within 5 s",
    )
    eventually(lambda: model.events("Repaired"))


def test_a_child_that_is_edited_is_put_back(model: Model) -> None:
    model.applied().serving()
    path = model.child_path("deployments")
    image = [{"name": "engine", "image": "somebody/else:1"}]
    model.kube.ask(
        "PATCH",
        f"{path}?fieldManager=vandal",
        {"spec": {"replicas": 5, "template": {"spec": {"containers": image}}}},
        "application/strategic-merge-patch+json",
    )

    def as_it_was() -> bool:
        spec = (model.child("deployments") or {})["spec"]
        [container] = spec["template"]["spec"]["containers"]
        return bool(spec["replicas"] == 1 and container["image"] == "llm-engine:test")

    eventually(as_it_was, within_s=5)


def test_a_label_that_is_taken_off_comes_back(model: Model) -> None:
    model.applied().serving()
    path = model.child_path("services")
    model.kube.merge(path, {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}})
    eventually(
        lambda: (model.child("services") or {})["metadata"]["labels"].get(
            "app.kubernetes.io/managed-by"
        ),
        within_s=10,
    )


def test_status_that_is_wiped_is_rebuilt(model: Model) -> None:
    model.applied().serving()
    model.kube.ask(
        "PATCH",
        f"{model.path}/status",
        {"status": None},
        "application/merge-patch+json",
    )
    eventually(lambda: len(model.seen()["status"]["conditions"]) == 8)
    model.end_inspection()  # what was known of the model is found out anew
    model.wait_for("Ready", "True Serving")


@pytest.mark.parametrize(
    ("state", "says", "said"),
    [
        pytest.param(
            {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling x/y:1"}},
            "False ImagePullFailed",
            "x/y:1",
            id="an image that is not there",
        ),
        pytest.param(
            {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": 'secret "hf-token" not found',
                }
            },
            "False SecretNotFound",
            "hf-token",
            id="a Secret that is not there",
        ),
        pytest.param(
            {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            "False OOMKilled",
            "limits.memory",
            id="out of memory",
        ),
    ],
)
def test_the_cause_of_a_stuck_replica_is_in_ready(
    model: Model, state: dict[str, object], says: str, said: str
) -> None:
    model.applied().launched()
    [pod] = model.pods("engine")
    container = {
        "name": "engine", "image": "i", "imageID": "i", "ready": False, "restartCount": 0,
        "state": state,
    }  # fmt: skip
    model.set_pod(pod, {"containerStatuses": [container]})
    model.wait_for("Ready", says, within_s=15)
    assert said in model.message("Ready")


def test_a_wrong_source_is_named_and_makes_no_storm(model: Model) -> None:
    model.applied()
    report = {"failure": {"reason": "ModelNotFound", "message": "/model/smollm2 does not exist"}}
    model.end_inspection(report)
    model.wait_for("Ready", "False ModelNotFound", within_s=15)
    assert "/model/smollm2 does not exist" in model.message("Ready")
    time.sleep(5)
    assert len(model.jobs()) == 1
    assert model.child("deployments") is None


def test_at_rest_nothing_is_written(model: Model, api: ApiServer) -> None:
    """A spec with every field, for the API server's own spelling must not look like drift."""
    model.applied(
        quantization="Int8",
        targets={"timeToFirstToken": "500ms", "maxCostPerHour": "12.00"},
        scaling={"minReplicas": 0, "maxReplicas": 4, "idleAfter": "10m"},
        drain={"timeout": "90s"},
        template={
            "labels": {"team": "search"},
            "annotations": {"a": "b"},
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "resources": {
                "requests": {"cpu": 2, "memory": "2048Mi", "ephemeral-storage": "1000Mi"},
                "limits": {"memory": "3072Mi", "cpu": "2500m"},
            },
        },
    ).serving()
    time.sleep(3)
    versions = _versions(model)
    mark = time.time()
    time.sleep(40)  # more than one resync, and eight ticks
    assert _versions(model) == versions
    assert writes_since(api.audit_log, mark, model.namespace, model.name) == []


def _versions(model: Model) -> dict[str, str]:
    found = {
        plural: (model.child(plural) or {})["metadata"]["resourceVersion"]
        for plural in ("deployments", "services", "poddisruptionbudgets", "networkpolicies")
    }
    return found | {"itself": model.seen()["metadata"]["resourceVersion"]}


def test_a_second_claim_on_a_name_is_refused_and_the_first_is_untouched(
    kube: Kube, shared: Shared
) -> None:
    first = Model(kube, shared[1], "first-claim").applied(
        model={"source": "pvc://m/a", "servedName": "claimed"}
    )
    first.serving()
    time.sleep(1.1)  # creation times are whole seconds
    second = Model(kube, shared[1], "second-claim").applied(
        model={"source": "pvc://m/b", "servedName": "claimed"}
    )
    second.wait_for("Ready", "False NameConflict")
    assert "first-claim" in second.message("Ready")
    assert second.jobs() == []
    assert first.says("Ready") == "True Serving"
    kube.delete(first.path)
    eventually(second.jobs, within_s=15, why="the name is free")


def test_a_name_that_somebody_else_uses_is_not_taken_over(kube: Kube, shared: Shared) -> None:
    model = Model(kube, shared[1], "taken")
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken-engine", "namespace": shared[1]},
        "spec": {"ports": [{"port": 1234}]},
    }
    kube.apply(model.child_path("services"), theirs)
    model.applied()
    model.wait_for("Ready", "False NameTaken")
    assert (model.child("services") or {})["spec"]["ports"][0]["port"] == 1234
    kube.delete(model.child_path("services"))
    model.wait_for("Ready", "False Inspecting", within_s=40)


def test_a_pause_leaves_even_a_vandal_alone(model: Model) -> None:
    model.applied().serving()
    model.kube.merge(model.path, {"metadata": {"annotations": {"llm-operator.dev/paused": "true"}}})
    model.wait_for("Progressing", "False Paused")
    model.kube.delete(model.child_path("services"))
    time.sleep(7)
    assert model.child("services") is None
    model.kube.merge(model.path, {"metadata": {"annotations": {"llm-operator.dev/paused": None}}})
    eventually(lambda: model.child("services"), within_s=8)


def test_kubectl_scale_sets_the_replicas_in_mode_manual(model: Model) -> None:
    model.applied(scaling={"mode": "Manual"}, replicas=1).serving()
    scale = model.kube.ask("GET", f"{model.path}/scale")
    scale["spec"]["replicas"] = 3
    model.kube.ask("PUT", f"{model.path}/scale", scale)
    eventually(lambda: (model.child("deployments") or {})["spec"]["replicas"] == 3, within_s=5)


def test_deleting_takes_all_children(model: Model) -> None:
    model.applied().serving()
    model.kube.delete(model.path)
    eventually(
        lambda: (
            not any(model.child(p) for p in ("deployments", "services", "poddisruptionbudgets"))
            and not model.pods("engine")
        ),
        within_s=30,
    )


@pytest.mark.usefixtures("shared")
def test_the_class_says_what_the_cluster_has(kube: Kube) -> None:
    node = {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"},
        "status": {
            "allocatable": {"cpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}],
        },
    }  # fmt: skip
    kube.ask("POST", "/api/v1/nodes", node)
    kube.merge("/api/v1/nodes/worker-1/status", {"status": node["status"]})
    # No kubelet renews its lease, so the controllers taint it soon; one count is enough.
    eventually(
        lambda: "nodes" in kube.ask("GET", f"{GROUP}/acceleratorclasses/cpu")["status"],
        within_s=45,
    )


def test_probes_and_metrics_tell_of_progress(shared: Shared) -> None:
    operator, _ = shared
    code, body = operator.ask("/healthz")
    assert (code, body["problems"]) == (200, [])
    assert set(body["loopAgeSeconds"]) == {"election", "resync", "inventory", "leadership"}
    assert operator.metric("llm_operator_reconciles_total") > 0
    assert operator.metric("llm_operator_errors_total") >= 0
    assert "Traceback" not in operator.log_text()
