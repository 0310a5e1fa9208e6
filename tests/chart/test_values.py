"""What the values turn on and off, and what happens to a typing error."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import CHART, Helm, Object, RenderError, of_kind, pods, the

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        pytest.param("gatway.replicas=3", "gatway", id="top-level key misspelt"),
        pytest.param("gateway.replica=3", "replica", id="nested key misspelt"),
        pytest.param("gateway.service.prot=80", "prot", id="deeply nested key misspelt"),
        pytest.param("image.tagg=v1", "tagg", id="image key misspelt"),
        pytest.param("gateway.replicas=two", "replicas", id="a word for a number"),
        pytest.param("gateway.replicas=0", "replicas", id="no gateway at all"),
        pytest.param("image.pullPolicy=always", "pullPolicy", id="pull policy in lower case"),
        pytest.param("image.repository=control:v1", "repository", id="tag within the repository"),
        pytest.param("image.digest=abc", "digest", id="not a digest"),
        pytest.param("operator.logLevel=verbose", "logLevel", id="unknown log level"),
        pytest.param("networkPolicy.enabled=maybe", "enabled", id="not a boolean"),
        pytest.param("operator.tolerations[0].kye=a", "kye", id="toleration key misspelt"),
        pytest.param("operator.resources.limit.cpu=1", "limit", id="limit for limits"),
    ],
)
def test_a_typing_error_is_refused_by_name(helm: Helm, setting: str, complaint: str) -> None:
    with pytest.raises(RenderError, match=complaint):
        helm.render(setting)


def test_lint_finds_nothing(helm: Helm) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))


def test_definitions_are_kept_when_the_chart_goes(objects: tuple[Object, ...]) -> None:
    definitions = of_kind(objects, "CustomResourceDefinition")
    assert {d["spec"]["names"]["kind"] for d in definitions} == {
        "LLMDeployment",
        "AcceleratorClass",
    }
    for definition in definitions:
        assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_definitions_can_be_left_to_others(helm: Helm) -> None:
    assert of_kind(helm.render("crds.install=false"), "CustomResourceDefinition") == []


def catalogue(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Return the accelerator classes that the operator is given, by name."""
    data = the(objects, "ConfigMap", "llm-operator-catalogue")["data"]
    return dict(yaml.safe_load(data["catalogue.yaml"]))


def test_the_catalogue_has_gpus_and_a_cpu_class(objects: tuple[Object, ...]) -> None:
    classes = catalogue(objects)
    assert len(classes) >= 12
    assert {spec["resourceName"] for spec in classes.values()} >= {"cpu", "nvidia.com/gpu"}


def test_one_figure_of_a_class_can_be_changed(helm: Helm, objects: tuple[Object, ...]) -> None:
    set_price = "acceleratorCatalogue.classes.nvidia-l4.price.perHour"
    changed = catalogue(helm.render(f"{set_price}=1", string=True))
    assert changed["nvidia-l4"]["price"].pop("perHour") == "1"
    del (before := catalogue(objects))["nvidia-l4"]["price"]["perHour"]
    assert changed == before


def test_a_class_can_be_added_and_left_out(helm: Helm, objects: tuple[Object, ...]) -> None:
    name = next(iter(catalogue(objects)))
    changed = catalogue(
        helm.render(
            f"acceleratorCatalogue.classes.{name}=null",
            "acceleratorCatalogue.classes.mine.resourceName=cpu",
        )
    )
    assert changed.keys() == (catalogue(objects).keys() - {name}) | {"mine"}


def test_without_the_catalogue_nothing_of_it_is_left(helm: Helm) -> None:
    objects = helm.render("acceleratorCatalogue.install=false")
    assert of_kind(objects, "ConfigMap") == []
    pod = the(objects, "Deployment", "llm-operator-operator")["spec"]["template"]["spec"]
    assert not [arg for arg in pod["containers"][0]["args"] if "catalogue" in arg]
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]


def test_a_new_catalogue_restarts_the_operator_that_reads_it_at_start(helm: Helm) -> None:
    def checksum(*sets: str) -> str:
        found = the(helm.render(*sets), "Deployment", "llm-operator-operator")
        return str(found["spec"]["template"]["metadata"]["annotations"]["checksum/catalogue"])

    assert checksum() != checksum("acceleratorCatalogue.classes.mine.resourceName=cpu")


def test_evictions_leave_a_gateway(objects: tuple[Object, ...]) -> None:
    [budget] = of_kind(objects, "PodDisruptionBudget")
    assert budget["metadata"]["name"] == "llm-operator-gateway"
    assert budget["spec"]["minAvailable"] == 1


def test_a_single_gateway_does_not_block_a_node_drain(helm: Helm) -> None:
    assert of_kind(helm.render("gateway.replicas=1"), "PodDisruptionBudget") == []


def test_a_standby_operator_is_spared_too(helm: Helm) -> None:
    budgets = of_kind(helm.render("operator.replicas=2"), "PodDisruptionBudget")
    assert {b["metadata"]["name"] for b in budgets} == {
        "llm-operator-operator",
        "llm-operator-gateway",
    }


def test_network_policies_can_be_left_out(helm: Helm) -> None:
    assert of_kind(helm.render("networkPolicy.enabled=false"), "NetworkPolicy") == []


def test_only_the_engine_image_reaches_engine_pods(helm: Helm) -> None:
    objects = helm.render(
        "engine.image.repository=registry.test:5000/engine", "engine.image.tag=v2"
    )
    pod = the(objects, "Deployment", "llm-operator-operator")["spec"]["template"]["spec"]
    assert "--engine-image=registry.test:5000/engine:v2" in pod["containers"][0]["args"]
    assert pod["containers"][0]["image"].startswith("llm-operator/control:")


def test_the_curl_of_the_notes_asks_through_the_forwarded_port(helm: Helm, tmp_path: Path) -> None:
    text = helm.notes(tmp_path, "gateway.service.port=8081")
    assert "kubectl -n llms port-forward service/llm-operator-gateway 8080:8081" in text
    [curl] = re.findall(r"curl http.*?'\n", text, re.DOTALL)
    words = shlex.split(curl)
    assert words[1] == "http://localhost:8080/v1/chat/completions"
    assert json.loads(words[words.index("-d") + 1])["model"] == "smollm2"


def test_the_manifest_of_the_notes_is_one_that_can_be_applied(helm: Helm, tmp_path: Path) -> None:
    [manifest] = re.findall(r"<<'YAML'\n(.*?)  YAML", helm.notes(tmp_path), re.DOTALL)
    found = yaml.safe_load(manifest)
    assert (found["kind"], found["metadata"]["name"]) == ("LLMDeployment", "smollm2")


def test_helm_test_asks_the_gateway_for_the_model_of_the_values(helm: Helm) -> None:
    objects = helm.render("test.model=tiny", "gateway.service.port=81")
    pod = the(objects, "Pod", "llm-operator-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    [container] = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    compile(container["args"][0], "one_prompt.py", "exec")
    assert container["args"][1:] == [
        "http://llm-operator-gateway.llm-operator-system:81", "120", "tiny"
    ]  # fmt: skip


def test_no_pod_of_the_default_chart_asks_for_much(objects: tuple[Object, ...]) -> None:
    for name, spec in pods(objects):
        assert spec["containers"][0]["resources"]["requests"]["cpu"] in ("50m", "100m"), name
