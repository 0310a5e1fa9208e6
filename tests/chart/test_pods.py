"""Every pod of the chart is one that a hardened namespace admits, and is told what it needs."""

import re
from typing import Any

import pytest

from llm_operator.api import names
from tests.chart.rendering import Helm, Object, of_kind, pods, the

pytestmark = pytest.mark.cluster


def violations(spec: dict[str, Any]) -> list[str]:
    """Return what the restricted Pod Security Standard, and our own rules above it, forbid."""
    found = []
    security = spec.get("securityContext", {})
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        found.append("may run as root")
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("seccomp is not RuntimeDefault")
    found += [k for k in ("hostNetwork", "hostPID", "hostIPC") if spec.get(k)]
    allowed = {"configMap", "downwardAPI", "emptyDir", "projected", "secret"}
    for volume in spec.get("volumes", []):
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - allowed]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("privilege escalation")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append("capabilities")
        if not own.get("readOnlyRootFilesystem"):
            found.append("writable root file system")
        if own.get("privileged"):
            found.append("privileged")
        if "memory" not in container.get("resources", {}).get("limits", {}):
            found.append("no memory limit")
    return found


def test_every_pod_meets_the_restricted_standard(objects: tuple[Object, ...]) -> None:
    found = {name: violations(spec) for name, spec in pods(objects)}
    assert found == {
        "llm-operator-operator": [],
        "llm-operator-gateway": [],
        "llm-operator-test": [],
    }


def test_a_pod_that_breaks_the_standard_is_found_out() -> None:
    bad = {"containers": [{"name": "x"}], "hostNetwork": True, "volumes": [{"hostPath": {}}]}
    assert len(violations(bad)) == 8


def test_each_process_has_its_own_service_account(objects: tuple[Object, ...]) -> None:
    accounts = {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}
    used = {spec["serviceAccountName"] for name, spec in pods(objects) if "test" not in name}
    assert used == accounts == {"llm-operator-operator", "llm-operator-gateway"}


def test_the_test_pod_has_no_token(objects: tuple[Object, ...]) -> None:
    assert the(objects, "Pod", "llm-operator-test")["spec"]["automountServiceAccountToken"] is False


def test_two_gateways_that_never_go_away_together(objects: tuple[Object, ...]) -> None:
    spec = the(objects, "Deployment", "llm-operator-gateway")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert (
        spread["labelSelector"]["matchLabels"].items()
        <= {**spec["template"]["metadata"]["labels"]}.items()
    )


def test_a_gateway_may_end_its_streams_before_it_is_killed(helm: Helm) -> None:
    objects = helm.render("gateway.drainSeconds=120")
    spec = the(objects, "Deployment", "llm-operator-gateway")["spec"]["template"]["spec"]
    assert "--drain-seconds=120" in spec["containers"][0]["args"]
    assert spec["terminationGracePeriodSeconds"] > 120


def test_ports_are_those_that_the_programs_listen_on(objects: tuple[Object, ...]) -> None:
    def ports(deployment: str) -> dict[str, int]:
        spec = the(objects, "Deployment", deployment)["spec"]["template"]["spec"]
        return {port["name"]: port["containerPort"] for port in spec["containers"][0]["ports"]}

    assert ports("llm-operator-gateway") == {
        "http": names.GATEWAY_PORT,
        "metrics": names.GATEWAY_METRICS_PORT,
    }
    assert ports("llm-operator-operator") == {
        "health": names.OPERATOR_HEALTH_PORT,
        "metrics": names.OPERATOR_METRICS_PORT,
    }


def test_every_probe_names_a_port_of_its_container(objects: tuple[Object, ...]) -> None:
    for name, spec in pods(objects):
        for container in spec["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in ports, (name, probe)


def test_the_service_selects_the_gateways(objects: tuple[Object, ...]) -> None:
    service = the(objects, "Service", "llm-operator-gateway")["spec"]
    pod = the(objects, "Deployment", "llm-operator-gateway")["spec"]["template"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["ports"][0]["port"] == 80
    assert service["ports"][0]["targetPort"] == "http"


def test_the_labels_by_which_the_operator_finds_gateways(objects: tuple[Object, ...]) -> None:
    pod = the(objects, "Deployment", "llm-operator-gateway")["spec"]["template"]
    assert pod["metadata"]["labels"][names.COMPONENT_LABEL] == names.GATEWAY_COMPONENT


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ConfigMap", "NetworkPolicy"])
def test_everything_bears_the_recommended_labels(objects: tuple[Object, ...], kind: str) -> None:
    wanted = {"name", "instance", "component", "part-of", "version", "managed-by"}
    for found in of_kind(objects, kind):
        labels = found["metadata"]["labels"]
        assert {f"app.kubernetes.io/{label}" for label in wanted} <= labels.keys()


def test_a_digest_wins_over_the_tag(helm: Helm) -> None:
    digest = "sha256:" + "a" * 64
    objects = helm.render(f"image.digest={digest}", "image.tag=v9")
    images = {spec["containers"][0]["image"] for _, spec in pods(objects)}
    assert images == {f"llm-operator/control@{digest}"}


def test_secrets_that_pull_images_reach_every_pod(helm: Helm) -> None:
    objects = helm.render("imagePullSecrets={one,two}")
    for _, spec in pods(objects):
        assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_pods_go_where_the_values_send_them(helm: Helm, component: str) -> None:
    objects = helm.render(
        f"{component}.nodeSelector.pool=system",
        f"{component}.tolerations[0].key=system",
        f"{component}.tolerations[0].operator=Exists",
        f"{component}.priorityClassName=high",
        f"{component}.podAnnotations.team=a",
        f"{component}.podLabels.cost=b",
    )
    template = the(objects, "Deployment", f"llm-operator-{component}")["spec"]["template"]
    assert template["spec"]["nodeSelector"] == {"pool": "system"}
    assert template["spec"]["tolerations"] == [{"key": "system", "operator": "Exists"}]
    assert template["spec"]["priorityClassName"] == "high"
    assert template["metadata"]["annotations"]["team"] == "a"
    assert template["metadata"]["labels"]["cost"] == "b"


def test_a_long_release_name_leaves_room_for_suffixes(helm: Helm) -> None:
    objects = helm.render(release="a" * 53)
    assert all(len(o["metadata"]["name"]) <= 63 for o in objects)
    assert all(re.fullmatch(r"[a-z0-9.-]+", o["metadata"]["name"]) for o in objects)


def test_engine_pods_pull_with_the_same_secrets(helm: Helm) -> None:
    objects = helm.render("imagePullSecrets={one}")
    pod = the(objects, "Deployment", "llm-operator-operator")["spec"]["template"]["spec"]
    assert "--engine-image-pull-secret=one" in pod["containers"][0]["args"]
