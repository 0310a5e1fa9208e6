"""Good custom resources on a real API server: defaults, status, scale, columns, explain."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.api_server import ApiServer
from llm_operator.api.deployment_status import StatusShape
from llm_operator.api.parsing import parse_accelerator_class, parse_deployment
from llm_operator.planner.catalogue import catalogue
from tests.cluster.kubectl import MODEL, create, kubectl

pytestmark = pytest.mark.cluster

EVERYTHING: dict[str, Any] = {
    "model": {
        "source": "hf://HuggingFaceTB/SmolLM2-135M-Instruct@main",
        "servedName": "smollm2/135m",
        "secretRef": {"name": "hf-token"},
        "maxContextTokens": 2048,
    },
    "quantization": "Int8",
    "targets": {
        "timeToFirstToken": "1m30s",
        "timePerOutputToken": "50ms",
        "percentile": 90,
        "maxCostPerHour": "12.00",
    },
    "hardware": {"accelerators": ["cpu", "nvidia-l4"]},
    "scaling": {
        "mode": "Advisory",
        "minReplicas": 0,
        "maxReplicas": 4,
        "idleAfter": "10m",
        "scaleDown": {"stabilization": "1m", "maxStep": 2},
    },
    "runtime": {"type": "Native"},
    "drain": {"timeout": "30s"},
    "template": {
        "labels": {"team": "search", "example.com/tier": ""},
        "annotations": {"example.com/owner": "someone with a name"},
        "nodeSelector": {"topology.kubernetes.io/zone": "eu-west-1a"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"operator": "Exists"},
            {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 30},
        ],
        "priorityClassName": "high",
        "resources": {
            "requests": {"cpu": 2, "memory": "4Gi", "ephemeral-storage": "20Gi"},
            "limits": {"cpu": "2500m", "memory": "4.5Gi"},
        },
    },
}


@pytest.fixture
def stored(custom_resources: ApiServer) -> Any:
    """Return a function that stores an LLMDeployment; the test's objects are deleted after it."""
    names = []

    def store(name: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
        document = {
            "apiVersion": "llm-operator.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name},
            "spec": spec,
            **more,
        }
        words = ("create", "-o", "json", "-f", "-")
        answer = kubectl(custom_resources, *words, stdin=json.dumps(document))
        assert answer.returncode == 0, answer.stderr
        names.append(name)
        answered: dict[str, Any] = json.loads(answer.stdout)
        return answered

    yield store
    if names:
        kubectl(custom_resources, "delete", "llmd", *names, "--wait=false")


def test_a_spec_with_every_field_is_accepted_and_stored_as_written(
    custom_resources: ApiServer,
) -> None:
    answer = create(custom_resources, EVERYTHING)

    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["spec"] == EVERYTHING


def test_the_shortest_spec_gets_its_defaults(custom_resources: ApiServer) -> None:
    answer = create(custom_resources, {"model": MODEL})

    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["spec"] == {
        "model": MODEL,
        "quantization": "None",
        "targets": {"percentile": 95},
        "scaling": {"mode": "Auto", "scaleDown": {"stabilization": "5m", "maxStep": 1}},
        "runtime": {"type": "Native"},
        "drain": {"timeout": "1m"},
    }


@pytest.mark.parametrize("spec", [EVERYTHING, {"model": MODEL}], ids=["everything", "shortest"])
def test_python_and_the_api_server_fill_in_the_same_defaults(
    spec: dict[str, Any], custom_resources: ApiServer
) -> None:
    answered = json.loads(create(custom_resources, spec).stdout)

    ours = parse_deployment({"metadata": {"name": "a"}, "spec": spec})
    theirs = parse_deployment(answered)
    assert ours.spec == theirs.spec


@pytest.mark.parametrize(
    "source",
    [
        "hf://gpt2",
        "hf://owner/name",
        "hf://owner/name@v1.0",
        "hf://owner/name@refs/pr/1",
        "pvc://claim",
        "pvc://claim.with.dots/folder",
        "pvc://claim/folder/model.Q4_1.gguf",
    ],
)
def test_a_source_is_accepted(source: str, custom_resources: ApiServer) -> None:
    assert create(custom_resources, {"model": {"source": source}}).returncode == 0


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_the_shipped_accelerator_class_is_accepted(name: str, custom_resources: ApiServer) -> None:
    answer = create(
        custom_resources, catalogue()[name], name=f"shipped-{name}", kind="AcceleratorClass"
    )

    assert answer.returncode == 0, answer.stderr
    parse_accelerator_class(json.loads(answer.stdout))


def test_a_status_given_at_creation_is_ignored(stored: Any) -> None:
    answered = stored("with-status", {"model": MODEL}, status={"replicas": 7})

    assert "status" not in answered


def test_kubectl_scale_sets_the_replicas_in_mode_manual(
    stored: Any, custom_resources: ApiServer
) -> None:
    stored("manual", {"model": MODEL, "scaling": {"mode": "Manual"}})

    scaled = kubectl(custom_resources, "scale", "llmd", "manual", "--replicas=3")

    assert scaled.returncode == 0, scaled.stderr
    path = "jsonpath={.spec.replicas}"
    assert kubectl(custom_resources, "get", "llmd", "manual", "-o", path).stdout == "3"


@pytest.mark.parametrize("replicas", [-1, 1_000_000], ids=["negative", "a million"])
def test_kubectl_scale_is_refused_beyond_its_bounds(
    replicas: int, stored: Any, custom_resources: ApiServer
) -> None:
    stored("bounds", {"model": MODEL, "scaling": {"mode": "Manual"}})

    scaled = kubectl(custom_resources, "scale", "llmd", "bounds", f"--replicas={replicas}")

    assert scaled.returncode != 0


def test_kubectl_scale_is_refused_where_the_operator_chooses(
    stored: Any, custom_resources: ApiServer
) -> None:
    stored("auto", {"model": MODEL})

    scaled = kubectl(custom_resources, "scale", "llmd", "auto", "--replicas=3")

    assert scaled.returncode != 0
    assert "may be set only where scaling.mode is Manual" in scaled.stderr
    assert "scaling.mode is Auto" in scaled.stderr


def test_the_columns_tell_how_it_is(stored: Any, custom_resources: ApiServer) -> None:
    stored("columns", {"model": MODEL})
    status = {
        "conditions": [
            {
                "type": "Ready", "status": "True", "reason": "Serving", "message": "",
                "lastTransitionTime": "2026-01-31T12:00:00Z",
            }
        ],
        "plan": {"quantization": "None", "accelerator": "nvidia-l4", "because": "fits"},
        "readyReplicas": 2,
        "observed": {
            "timeToFirstToken": "412ms", "timePerOutputToken": "38ms", "costPerHour": "1.61",
        },
    }  # fmt: skip
    patch = ("patch", "llmd", "columns", "--subresource=status", "--type=merge", "-p")
    patched = kubectl(custom_resources, *patch, json.dumps({"status": status}))
    assert patched.returncode == 0, patched.stderr

    heads, row = kubectl(custom_resources, "get", "llmd", "columns", "-o", "wide").stdout.split(
        "\n"
    )[:2]

    assert heads.split() == [
        "NAME", "READY", "REASON", "MODEL", "QUANT", "ACCELERATOR", "REPLICAS", "TTFT", "TPOT",
        "$/H", "AGE",
    ]  # fmt: skip
    assert row.split()[:-1] == [
        "columns", "True", "Serving", "pvc://models/smollm2", "None", "nvidia-l4", "2", "412ms",
        "38ms", "1.61",
    ]  # fmt: skip


SHAPE = StatusShape(
    architecture="llama", layers=30, hidden_size=576, intermediate_size=1536, query_heads=9,
    kv_heads=3, head_dim=64, vocabulary=49152, context_tokens=8192, tied_embeddings=True,
)  # fmt: skip
"""With its defaults, which the API server writes too."""


def test_the_status_that_the_models_write_is_stored_whole(
    stored: Any, custom_resources: ApiServer
) -> None:
    stored("status", {"model": MODEL})
    status = {
        "observedGeneration": 1,
        "conditions": [],
        "model": {
            "source": "pvc://models/smollm2", "architecture": "llama", "parameters": 134515008,
            "weightBytes": 269030016, "kvBytesPerToken": 23040, "contextTokens": 8192,
            "shape": SHAPE.model_dump(by_alias=True, exclude_none=True, mode="json"),
        },
        "replicas": 1,
        "selector": "llm-operator.dev/deployment=status",
        "coldStart": {"loading": "9s"},
        "decisions": [
            {
                "time": "2026-01-31T12:00:00Z", "from": 1, "to": 3, "because": "4.2 requests/s",
                "inputs": {"requestsPerSecond": 4.2, "replicas": 1, "mode": "Auto"},
            }
        ],
        "scaling": {"wants": [[1769860800, 3]], "model": {"a": 0.01}},
    }  # fmt: skip
    patch = ("patch", "llmd", "status", "--subresource=status", "--type=merge", "-o", "json", "-p")

    patched = kubectl(custom_resources, *patch, json.dumps({"status": status}))

    assert patched.returncode == 0, patched.stderr
    answered = json.loads(patched.stdout)
    assert answered["status"] == status
    assert parse_deployment(answered).status.to_wire() == status


@pytest.mark.parametrize("kind", ["llmd", "accel", "llmdeployment.spec.scaling.scaleDown"])
def test_kubectl_explains_every_field(kind: str, custom_resources: ApiServer) -> None:
    explained = kubectl(custom_resources, "explain", kind)

    assert explained.returncode == 0, explained.stderr
    assert "<no description>" not in explained.stdout


def test_the_categories_list_them(stored: Any, custom_resources: ApiServer) -> None:
    stored("listed", {"model": MODEL})

    for category in ("all", "ai"):
        listed = kubectl(custom_resources, "get", category, "-o", "name")
        assert "llmdeployment.llm-operator.dev/listed" in listed.stdout.split()


def test_the_crds_are_those_of_the_repository(custom_resources: ApiServer) -> None:
    for path in (Path(__file__).parents[2] / "crds").glob("*.yaml"):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        answer = kubectl(custom_resources, "get", "crd", name, "-o", "json")
        conditions = json.loads(answer.stdout)["status"]["conditions"]
        assert {c["type"]: c["status"] for c in conditions} == {
            "NamesAccepted": "True",
            "Established": "True",
        }
