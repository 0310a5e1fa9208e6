"""The operator against a real API server: with the chart's rights, and nothing else."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.api_server import ApiServer
from tests.cluster.operator.kube import GROUP, Json, Kube, eventually
from tests.cluster.operator.process import ROOT, Operator

_NUMBERS = itertools.count(1)
_CPU_CLASS: Json = {
    "apiVersion": "llm-operator.dev/v1alpha1",
    "kind": "AcceleratorClass",
    "metadata": {"name": "cpu"},
    "spec": {"resourceName": "cpu", "memory": "4Gi", "price": {"perHour": "0.05"}},
}


@pytest.fixture(scope="session")
def kube(custom_resources: ApiServer) -> Kube:
    """The administrator, with the custom resources installed and one AcceleratorClass."""
    kube = Kube.of(custom_resources.kubeconfig)
    eventually(lambda: kube.list(f"{GROUP}/llmdeployments") == [])
    eventually(lambda: kube.list(f"{GROUP}/acceleratorclasses") == [])
    kube.apply(f"{GROUP}/acceleratorclasses/cpu", _CPU_CLASS)
    return kube


@pytest.fixture
def namespace(kube: Kube) -> str:
    """A namespace of its own that admits restricted pods only."""
    return make_namespace(kube)


def make_namespace(kube: Kube) -> str:
    name = f"operator-{next(_NUMBERS)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
    }  # fmt: skip
    kube.apply(f"/api/v1/namespaces/{name}", manifest)
    # Pods are refused until the namespace has its account.
    eventually(lambda: kube.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
    return name


@pytest.fixture(scope="session")
def rights() -> list[Json]:
    """The rules that the chart grants the operator."""
    text = (ROOT / "charts/llm-operator/templates/operator/rbac.yaml").read_text()
    rules: list[Json] = []
    text = re.sub(r"\{\{\s*(if|end)[^}]*\}\}", "", text)  # with all its parts switched on
    for document in text.split("\n---"):
        plain = "\n".join(line for line in document.splitlines() if "{{" not in line)
        parsed = yaml.safe_load(plain)
        rules += (parsed or {}).get("rules") or []
    return rules


@pytest.fixture
def account(kube: Kube, rights: list[Json], tmp_path: Path) -> Callable[[str], Path]:
    """Makes the operator's account in a namespace, and returns its kubeconfig."""

    def make(namespace: str, without: tuple[str, str] | None = None) -> Path:
        rules = [_without(rule, without) for rule in rights]
        return make_account(kube, namespace, rules, tmp_path)

    return make


def _without(rule: Json, right: tuple[str, str] | None) -> Json:
    """Take one verb on one resource out of a rule."""
    if right is None or right[1] not in rule["resources"]:
        return rule
    return {**rule, "verbs": [verb for verb in rule["verbs"] if verb != right[0]]}


def make_account(kube: Kube, namespace: str, rules: list[Json], folder: Path) -> Path:
    name = f"operator-{namespace}"
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    meta = {"name": name}
    kube.apply(
        f"{accounts}/{name}", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
    )
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    api_version = "rbac.authorization.k8s.io/v1"
    kube.apply(
        f"{rbac}/clusterroles/{name}",
        {"apiVersion": api_version, "kind": "ClusterRole", "metadata": meta, "rules": rules},
    )
    kube.apply(
        f"{rbac}/clusterrolebindings/{name}",
        {
            "apiVersion": api_version,
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name,
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    )  # fmt: skip
    token = kube.ask("POST", f"{accounts}/{name}/token", {"spec": {"expirationSeconds": 7200}})
    ca = kube.authority.decode()
    kubeconfig = folder / f"{name}.kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(kube.url, ca, token["status"]["token"])))
    return kubeconfig


def _kubeconfig(url: str, authority: str, token: str) -> dict[str, Any]:
    import base64

    data = base64.b64encode(authority.encode()).decode()
    cluster = {"server": url, "certificate-authority-data": data}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


@pytest.fixture(scope="session")
def shared(
    kube: Kube, rights: list[Json], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Operator, str]]:
    """One operator for all tests that leave it alive, and its namespace."""
    folder = tmp_path_factory.mktemp("shared-operator")
    namespace = make_namespace(kube)
    kubeconfig = make_account(kube, namespace, rights, folder)
    with Operator(kubeconfig, folder, namespace, "--restrict-engine-traffic") as operator:
        operator.wait_until_it_leads().wait_until_ready()
        yield operator, namespace
