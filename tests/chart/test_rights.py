"""Nobody may do more than their work takes."""

from collections.abc import Iterator

import pytest

from tests.chart.rendering import Helm, Object, of_kind, the

pytestmark = pytest.mark.cluster

Grant = tuple[str, str, str]  # group, resource, verb


def grants(objects: tuple[Object, ...], holder: str = "") -> Iterator[Grant]:
    """Yield everything that the roles of `holder` (by default of all) allow."""
    for role in [*of_kind(objects, "ClusterRole"), *of_kind(objects, "Role")]:
        if holder in role["metadata"]["name"]:
            for rule in role["rules"]:
                assert not rule.get("nonResourceURLs")
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            yield group, resource, verb


def test_no_right_is_a_wildcard(objects: tuple[Object, ...]) -> None:
    assert not [grant for grant in grants(objects) if "*" in grant]


@pytest.mark.parametrize(
    "resource", ["secrets", "pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token"]
)
def test_nobody_may_touch(objects: tuple[Object, ...], resource: str) -> None:
    assert resource not in {granted for _, granted, _ in grants(objects)}


def test_nobody_may_raise_their_own_rights(objects: tuple[Object, ...]) -> None:
    assert "rbac.authorization.k8s.io" not in {group for group, _, _ in grants(objects)}
    assert not {"escalate", "bind", "impersonate"} & {verb for _, _, verb in grants(objects)}


def test_the_gateway_only_reads(objects: tuple[Object, ...]) -> None:
    assert {verb for _, _, verb in grants(objects, "gateway")} <= {"get", "list", "watch"}
    assert {resource for _, resource, _ in grants(objects, "gateway")} == {
        "llmdeployments",
        "endpointslices",
    }


def test_the_operator_never_changes_what_people_ask_for(objects: tuple[Object, ...]) -> None:
    verbs = {verb for _, r, verb in grants(objects, "operator") if r == "llmdeployments"}
    assert verbs == {"list", "watch"}


def test_leases_only_in_the_namespace_of_the_release(objects: tuple[Object, ...]) -> None:
    roles = [r for r in of_kind(objects, "ClusterRole") for rule in r["rules"]
             if "leases" in rule["resources"]]  # fmt: skip
    assert roles == []
    [role] = of_kind(objects, "Role")
    assert role["metadata"]["namespace"] == "llm-operator-system"
    assert [rule["resources"] for rule in role["rules"]] == [["leases"]]


def test_without_the_catalogue_the_operator_writes_no_accelerator_class(helm: Helm) -> None:
    objects = helm.render("acceleratorCatalogue.install=false")
    verbs = {verb for _, r, verb in grants(objects, "operator") if r == "acceleratorclasses"}
    assert verbs == {"list", "watch"}


def test_every_binding_is_of_a_role_and_an_account_that_exist(objects: tuple[Object, ...]) -> None:
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in of_kind(objects, kind):
            the(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
            for subject in binding["subjects"]:
                the(objects, "ServiceAccount", subject["name"])
                assert subject["namespace"] == "llm-operator-system"


def test_metrics_of_gateways_are_for_the_operator_only(objects: tuple[Object, ...]) -> None:
    policy = the(objects, "NetworkPolicy", "llm-operator-gateway")["spec"]
    http, metrics = policy["ingress"]
    assert "from" not in http
    [peer] = metrics["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"


def test_nothing_reaches_the_operator(objects: tuple[Object, ...]) -> None:
    policy = the(objects, "NetworkPolicy", "llm-operator-operator")["spec"]
    assert (policy["policyTypes"], policy["ingress"]) == (["Ingress"], [])


def test_peers_that_read_metrics_and_clients_are_values(helm: Helm) -> None:
    peer = "namespaceSelector.matchLabels.team=monitoring"
    objects = helm.render(
        f"networkPolicy.metricsFrom[0].{peer}", f"networkPolicy.clientsFrom[0].{peer}"
    )
    operator = the(objects, "NetworkPolicy", "llm-operator-operator")["spec"]["ingress"]
    http, metrics = the(objects, "NetworkPolicy", "llm-operator-gateway")["spec"]["ingress"]
    wanted = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    assert operator[0]["from"] == http["from"] == [wanted]
    assert wanted in metrics["from"]
