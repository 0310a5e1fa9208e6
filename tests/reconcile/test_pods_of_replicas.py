"""What a replica's pod looks like: restricted, probed, drained, placed."""

from typing import Any

import pytest

from llm_operator.reconcile.observed import EngineSettings
from tests.reconcile.world import World, a_class, a_deployment


def pod_of(**spec: Any) -> dict[str, Any]:
    world = World(deployment=a_deployment(**spec))
    world.inspected()
    pod: dict[str, Any] = world.engine["spec"]["template"]["spec"]
    return pod


def inspect_pod_of(**spec: Any) -> dict[str, Any]:
    world = World(deployment=a_deployment(**spec))
    world.look()
    pod: dict[str, Any] = world.of_kind("Job")[0]["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("build", [pod_of, inspect_pod_of])
def test_pods_are_restricted(build: Any) -> None:
    pod = build()
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("build", [pod_of, inspect_pod_of])
@pytest.mark.parametrize(
    ("source", "argument", "claim"),
    [
        pytest.param("pvc://models/a/b", "/model/a/b", "models", id="a folder of a claim"),
        pytest.param("pvc://models", "/model", "models", id="a whole claim"),
        pytest.param("hf://owner/name@main", "hf://owner/name@main", None, id="a hub"),
    ],
)
def test_the_model_is_reached(build: Any, source: str, argument: str, claim: str | None) -> None:
    pod = build(model={"source": source})
    [container] = pod["containers"]
    assert container["args"][1] == argument
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["volumes"]
        if "persistentVolumeClaim" in v
    ]
    assert claims == ([claim] if claim else [])
    if claim:
        assert {"name": "model", "mountPath": "/model", "readOnly": True} in container[
            "volumeMounts"
        ]
    else:
        assert {"name": "HF_HOME", "value": "/cache/huggingface"} in container["env"]


@pytest.mark.parametrize("build", [pod_of, inspect_pod_of])
def test_the_token_is_referred_to_and_never_read(build: Any) -> None:
    pod = build(model={"source": "hf://owner/name", "secretRef": {"name": "hf"}})
    [token] = [e for e in pod["containers"][0]["env"] if e["name"] == "HF_TOKEN"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hf", "key": "token"}}


@pytest.mark.parametrize("build", [pod_of, inspect_pod_of])
def test_keys_of_a_bucket_are_referred_to_and_never_read(build: Any) -> None:
    pod = build(model={"source": "s3://models/tiny", "secretRef": {"name": "keys"}})
    [container] = pod["containers"]
    assert container["args"][1] == "s3://models/tiny"
    env = {each["name"]: each for each in container["env"]}
    assert env["LLM_ENGINE_CACHE"]["value"] == "/cache/models"
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"] == {
        "secretKeyRef": {"name": "keys", "key": "AWS_SECRET_ACCESS_KEY", "optional": False}
    }
    assert env["AWS_ENDPOINT_URL"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert "HF_TOKEN" not in env


def test_a_bucket_without_a_secret_is_read_unsigned() -> None:
    env = pod_of(model={"source": "s3://models/tiny"})["containers"][0]["env"]
    assert {"name": "AWS_SKIP_SIGNATURE", "value": "true"} in env
    assert not any("valueFrom" in each for each in env if each["name"].startswith("AWS_"))


@pytest.mark.parametrize(
    ("drain", "grace_s"),
    [pytest.param("60s", 75, id="a minute"), pytest.param("500ms", 16, id="half a second")],
)
def test_the_grace_period_is_longer_than_pause_and_drain(drain: str, grace_s: int) -> None:
    pod = pod_of(drain={"timeout": drain})
    assert pod["terminationGracePeriodSeconds"] == grace_s
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_probes_tell_starting_from_dead_and_draining() -> None:
    [container] = pod_of()["containers"]
    assert container["startupProbe"]["httpGet"]["path"] == "/startupz"
    assert container["startupProbe"]["failureThreshold"] * 2 >= 600
    assert container["readinessProbe"]["periodSeconds"] == 2
    assert container["livenessProbe"]["timeoutSeconds"] == 5


def test_a_large_model_may_take_longer_to_start() -> None:
    world = World()
    world.serving()
    world.deployment["status"]["model"]["fileBytes"] = 500 * 10**9
    world.settle()
    [container] = world.engine["spec"]["template"]["spec"]["containers"]
    assert container["startupProbe"]["failureThreshold"] == 3750
    assert world.engine["spec"]["progressDeadlineSeconds"] > 7500


def test_on_the_cpu_memory_and_cores_come_from_the_class() -> None:
    [container] = pod_of()["containers"]
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "4Gi"}}
    assert container["args"][container["args"].index("--device") + 1] == "cpu"


def test_what_the_user_says_of_resources_wins() -> None:
    said = {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "3Gi"}}
    [container] = pod_of(template={"resources": said})["containers"]
    assert container["resources"] == said


def test_an_accelerator_is_asked_for_with_its_place() -> None:
    gpu = a_class(
        "nvidia-l4",
        resourceName="nvidia.com/gpu",
        count=2,
        memory="24Gi",
        nodeSelector={"gpu": "l4"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
    )
    world = World(
        deployment=a_deployment(
            hardware={"accelerators": ["nvidia-l4"]}, template={"nodeSelector": {"zone": "a"}}
        ),
        classes=[gpu],
    )
    world.inspected()
    pod = world.engine["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "2"
    assert pod["nodeSelector"] == {"gpu": "l4", "zone": "a"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert container["args"][container["args"].index("--device") + 1] == "cuda"


def test_labels_of_the_user_never_displace_ours() -> None:
    world = World(deployment=a_deployment(template={"labels": {"team": "search"}}))
    world.inspected()
    template = world.engine["spec"]["template"]
    selector = world.engine["spec"]["selector"]["matchLabels"]
    assert template["metadata"]["labels"] | selector == template["metadata"]["labels"]
    assert template["metadata"]["labels"]["team"] == "search"


def test_a_change_of_the_operator_itself_restarts_no_replica() -> None:
    """The fingerprint lies on the Deployment; its pod template knows nothing of the operator."""
    world = World().serving()
    template = world.engine["spec"]["template"]
    assert "annotations" not in template["metadata"]
    assert "llm-operator.dev/applied" not in str(template)


def test_every_child_goes_with_its_owner_and_blocks_no_deletion() -> None:
    world = World(settings=EngineSettings(image="llm-engine:1", restrict_traffic=True)).serving()
    for (kind, _), child in world.children.items():
        if kind != "Pod":
            [owner] = child["metadata"]["ownerReferences"]
            assert owner["uid"] == "uid-of-smollm2"
            assert owner["controller"] is True
            assert owner["blockOwnerDeletion"] is False
            assert "finalizers" not in child["metadata"]


def test_traffic_is_restricted_where_asked_and_freed_where_not() -> None:
    world = World(
        settings=EngineSettings(image="llm-engine:1", namespace="ops", restrict_traffic=True)
    ).serving()
    [policy] = world.of_kind("NetworkPolicy")
    [rule] = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8000, "protocol": "TCP"}]
    [caller] = rule["from"]
    assert caller["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "ops"}
    world.settings = EngineSettings(image="llm-engine:1")
    world.settle()
    assert world.of_kind("NetworkPolicy") == []
