"""Bad specs are refused by a real API server, with the message that their author needs."""

from dataclasses import dataclass
from typing import Any

import pytest

from e2e.cluster.api_server import ApiServer
from tests.cluster.kubectl import MODEL, create

pytestmark = pytest.mark.cluster

SOURCE_ALLOWED = (
    "must be hf://owner/name, hf://owner/name@revision, s3://bucket/path or pvc://claim/path"
)
DURATION_ALLOWED = "must be a duration such as 500ms, 30s, 10m or 1h30m"
MONEY_ALLOWED = "must be a decimal string such as '12.00'"
QUANTITY_ALLOWED = "must be a quantity above 0, such as 16Gi, 500m or 2"
NAME_ALLOWED = "metadata.name must be at most 40 lower-case letters, digits and -"


@dataclass(frozen=True)
class Bad:
    """A bad part of a spec and what the refusal must say."""

    says: tuple[str, ...]
    spec: dict[str, Any]


def bad(*says: str, **parts: Any) -> Bad:
    return Bad(says, {"model": MODEL, **parts})


def with_source(source: Any) -> Bad:
    return bad("spec.model.source", str(source), SOURCE_ALLOWED, model={"source": source})


BAD_SPECS = {
    "no model": Bad(("spec.model: Required value",), {}),
    "a model without a source": bad("spec.model.source: Required value", model={}),
    "an empty source": bad("spec.model.source", "at least 1 chars long", model={"source": ""}),
    "a source of 5 kB": bad(
        "spec.model.source: Too long: may not be more than 512",
        model={"source": "hf://owner/" + "n" * 5000},
    ),
    "a file of the host": with_source("file:///etc/passwd"),
    "a path that climbs": with_source("../../x"),
    "the cloud's metadata address": with_source("http://169.254.169.254/latest"),
    "a claim's path that climbs": with_source("pvc://claim/../../etc"),
    "a hidden climb at the end": with_source("pvc://claim/weights/.."),
    "a hub's name that climbs": with_source("hf://owner/../secret"),
    "a source with spaces": with_source("hf://owner/my model"),
    "a source with an emoji": with_source("hf://owner/llama🦙"),
    "a source of another scheme": with_source("ftp://bucket/model"),
    "a path out of a bucket": with_source("s3://bucket/../other"),
    "a source with a control character": bad(
        "spec.model.source", SOURCE_ALLOWED, model={"source": "hf://owner/name\u0007"}
    ),
    "a source with a line after it": bad(
        "spec.model.source", SOURCE_ALLOWED, model={"source": "hf://owner/name\nx"}
    ),
    "a served name with spaces": bad(
        "spec.model.servedName",
        "my model",
        "must be letters, digits and . _ - / with a letter or digit at both ends",
        model=MODEL | {"servedName": "my model"},
    ),
    "a context of no tokens": bad(
        "spec.model.maxContextTokens: Invalid value: 0",
        "greater than or equal to 16",
        model=MODEL | {"maxContextTokens": 0},
    ),
    "a secret of another namespace": bad(
        'unknown field "spec.model.secretRef.namespace"',
        model=MODEL | {"secretRef": {"name": "token", "namespace": "kube-system"}},
    ),
    "a secret for a volume": bad(
        "spec.model.secretRef",
        "may be set only where source is hf:// or s3://",
        model=MODEL | {"secretRef": {"name": "hf-token"}},
    ),
    "a secret's name in capitals": bad(
        "spec.model.secretRef.name",
        "HF_TOKEN",
        "must be the name of an object",
        model={"source": "hf://owner/name"} | {"secretRef": {"name": "HF_TOKEN"}},
    ),
    "a quantization that is not there": bad(
        'spec.quantization: Unsupported value: "int3":'
        ' supported values: "None", "Int8", "Int4", "FP8"',
        quantization="int3",
    ),
    "a misspelt field": bad('unknown field "spec.replicsa"', replicsa=2),
    "a field of a later version": bad(
        'unknown field "spec.targets.prefer"', targets={"prefer": "Cost"}
    ),
    "a target of zero": bad(
        "spec.targets.timeToFirstToken",
        '"0s"',
        "must be from 1ms to 10m, not 0s",
        targets={"timeToFirstToken": "0s"},
    ),
    "a negative target": bad(
        "spec.targets.timeToFirstToken",
        f"{DURATION_ALLOWED}, not -1s",
        targets={"timeToFirstToken": "-1s"},
    ),
    "a target of years": bad(
        "spec.targets.timePerOutputToken",
        "must be from 1ms to 1m, not 99999h",
        targets={"timePerOutputToken": "99999h"},
    ),
    "a target with a fraction": bad(
        "spec.targets.timePerOutputToken",
        f"{DURATION_ALLOWED}, not 1.5s",
        targets={"timePerOutputToken": "1.5s"},
    ),
    "a target without a unit": bad(
        "spec.targets.timeToFirstToken", "must be of type string", targets={"timeToFirstToken": 500}
    ),
    "a percentile of 100": bad(
        "spec.targets.percentile: Invalid value: 100",
        "less than or equal to 99",
        targets={"percentile": 100},
    ),
    "a budget that is no number": bad(
        "spec.targets.maxCostPerHour",
        f"{MONEY_ALLOWED}, not NaN",
        targets={"maxCostPerHour": "NaN"},
    ),
    "a negative budget": bad(
        "spec.targets.maxCostPerHour", f"{MONEY_ALLOWED}, not -1", targets={"maxCostPerHour": "-1"}
    ),
    "a budget of nothing": bad(
        "spec.targets.maxCostPerHour",
        "must be more than 0, not 0.00",
        targets={"maxCostPerHour": "0.00"},
    ),
    "a budget as a float": bad(
        "spec.targets.maxCostPerHour", "must be of type string", targets={"maxCostPerHour": 12.5}
    ),
    "fewest above most": bad(
        "spec.scaling.minReplicas",
        "must be at most scaling.maxReplicas, not 5; scaling.maxReplicas is 2",
        scaling={"minReplicas": 5, "maxReplicas": 2},
    ),
    "negative replicas": bad(
        "spec.scaling.minReplicas: Invalid value: -1",
        "greater than or equal to 0",
        scaling={"minReplicas": -1},
    ),
    "a billion replicas": bad(
        "spec.scaling.maxReplicas: Invalid value: 1000000000",
        "less than or equal to 1000",
        scaling={"maxReplicas": 1_000_000_000},
    ),
    "no replicas at most": bad(
        "spec.scaling.maxReplicas: Invalid value: 0", scaling={"maxReplicas": 0}
    ),
    "half a replica": bad(
        "spec.scaling.maxReplicas", "must be of type integer", scaling={"maxReplicas": 1.5}
    ),
    "replicas where the operator chooses them": bad(
        "spec.replicas",
        "may be set only where scaling.mode is Manual",
        "scaling.minReplicas and scaling.maxReplicas",
        "scaling.mode is Auto",
        replicas=2,
    ),
    "limits where a person chooses the replicas": bad(
        "spec.scaling",
        "minReplicas and maxReplicas may not be set where mode is Manual",
        scaling={"mode": "Manual", "maxReplicas": 4},
    ),
    "a mode that is not there": bad(
        'spec.scaling.mode: Unsupported value: "auto"',
        '"Auto", "Advisory", "Manual"',
        scaling={"mode": "auto"},
    ),
    "idleness where replicas never stop": bad(
        "spec.scaling.idleAfter",
        "may be set only where scaling.minReplicas is 0",
        scaling={"minReplicas": 1, "idleAfter": "5m"},
    ),
    "a runtime that is not there": bad(
        'spec.runtime.type: Unsupported value: "VLLM"', runtime={"type": "VLLM"}
    ),
    "a drain of a day": bad(
        "spec.drain.timeout", "must be from 0s to 1h, not 24h", drain={"timeout": "24h"}
    ),
    "the same accelerator twice": bad(
        "spec.hardware.accelerators[1]: Duplicate value",
        hardware={"accelerators": ["nvidia-l4", "nvidia-l4"]},
    ),
    "an accelerator's name in capitals": bad(
        "spec.hardware.accelerators[0]",
        "must be the name of an object",
        "not NVIDIA_L4",
        hardware={"accelerators": ["NVIDIA_L4"]},
    ),
    "an accelerator in the resources": bad(
        'unknown field "spec.template.resources.limits.nvidia.com/gpu"',
        template={"resources": {"limits": {"nvidia.com/gpu": 0}}},
    ),
    "memory in a unit that is not there": bad(
        "spec.template.resources.requests.memory",
        f"{QUANTITY_ALLOWED}, not 12Gb",
        template={"resources": {"requests": {"memory": "12Gb"}}},
    ),
    "negative CPU": bad(
        "spec.template.resources.requests.cpu: Invalid value: -1",
        QUANTITY_ALLOWED,
        template={"resources": {"requests": {"cpu": -1}}},
    ),
    "a request above its limit": bad(
        "spec.template.resources.requests.cpu",
        "must be at most limits.cpu, not 2; the limit is 1500m",
        template={"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}},
    ),
    "a container of one's own": bad(
        'unknown field "spec.template.containers"',
        template={"containers": [{"name": "x", "securityContext": {"privileged": True}}]},
    ),
    "the network of the host": bad(
        'unknown field "spec.template.hostNetwork"', template={"hostNetwork": True}
    ),
    "a label of the operator": bad(
        "spec.template.labels",
        "belong to the operator",
        "app.kubernetes.io/name",
        template={"labels": {"app.kubernetes.io/name": "mine"}},
    ),
    "a label's value with a space": bad(
        "spec.template.labels",
        "values must be at most 63 letters, digits and . _ -",
        "team",
        template={"labels": {"team": "my team"}},
    ),
    "a thousand labels": bad(
        "spec.template.labels: Too many: 1000",
        template={"labels": {f"label-{n}": "x" for n in range(1000)}},
    ),
    "a toleration without key or operator": bad(
        "spec.template.tolerations[0]",
        "must have a key, or operator Exists",
        template={"tolerations": [{"effect": "NoSchedule"}]},
    ),
}


@pytest.mark.parametrize("case", BAD_SPECS.values(), ids=BAD_SPECS)
def test_the_api_server_refuses(case: Bad, custom_resources: ApiServer) -> None:
    answer = create(custom_resources, case.spec)

    assert answer.returncode != 0, f"accepted: {case.spec}"
    assert [words for words in case.says if words not in answer.stderr] == [], answer.stderr


@pytest.mark.parametrize(
    "name",
    ["a" * 41, "1st-model", "smol.lm"],
    ids=["of 41 characters", "that begins with a digit", "with a dot, which no Service may bear"],
)
def test_the_api_server_refuses_a_name(name: str, custom_resources: ApiServer) -> None:
    answer = create(custom_resources, {"model": MODEL}, name=name)

    assert answer.returncode != 0
    assert NAME_ALLOWED in answer.stderr
    assert f"not {name}" in answer.stderr


BAD_CLASSES = {
    "no resource": (("spec.resourceName: Required value",), {}),
    "no memory at all": (
        ("spec.memory", QUANTITY_ALLOWED, "not 0"),
        {"resourceName": "nvidia.com/gpu", "memory": "0"},
    ),
    "a negative price": (
        ("spec.price.perHour", MONEY_ALLOWED, "not -1"),
        {"resourceName": "nvidia.com/gpu", "price": {"perHour": "-1"}},
    ),
    "half an accelerator": (
        ("spec.count", "must be of type integer"),
        {"resourceName": "nvidia.com/gpu", "count": 0.5},
    ),
    "a currency in words": (
        ("spec.price.currency", "a currency code such as USD"),
        {"resourceName": "nvidia.com/gpu", "price": {"currency": "usd"}},
    ),
}


@pytest.mark.parametrize(("says", "spec"), BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_the_api_server_refuses_an_accelerator_class(
    says: tuple[str, ...], spec: dict[str, Any], custom_resources: ApiServer
) -> None:
    answer = create(custom_resources, spec, kind="AcceleratorClass")

    assert answer.returncode != 0
    assert [words for words in says if words not in answer.stderr] == [], answer.stderr
