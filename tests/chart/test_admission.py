"""A real API server takes everything the chart renders, where restricted is enforced."""

import subprocess
from collections.abc import Iterator

import pytest

from e2e.cluster import api_server
from tests.chart.rendering import CHART, Helm

pytestmark = pytest.mark.cluster

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata:
  name: llm-operator-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
---
# Made by a controller elsewhere; there is only an API server here.
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: llm-operator-system}
"""


@pytest.fixture(scope="module")
def api() -> Iterator[api_server.ApiServer]:
    with api_server.running() as server:
        apply(server, NAMESPACE)
        yield server


def apply(api: api_server.ApiServer, manifest: str, *flags: str) -> str:
    """Return all that kubectl says, warnings too."""
    return subprocess.run(
        [api.kubectl, "--kubeconfig", api.kubeconfig, "apply", *flags, "-f", "-"],
        input=manifest,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    ).stdout


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((), id="default values"),
        pytest.param(
            (
                "operator.replicas=2",
                "gateway.service.type=LoadBalancer",
                "gateway.podDisruptionBudget.minAvailable=50%",
                "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
                "imagePullSecrets={pull}",
                "fullnameOverride=llm",
                "gateway.extraArgs={--replica-requests=64}",
                "operator.nodeSelector.pool=system",
            ),
            id="much set",
        ),
    ],
)
def test_the_api_server_takes_every_object_without_a_warning(
    helm: Helm, api: api_server.ApiServer, settings: tuple[str, ...]
) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    manifest = helm.run("template", "x", str(CHART), "-n", "llm-operator-system", *flags)
    said = apply(api, manifest, "--dry-run=server", "-n", "llm-operator-system")
    assert {line.rpartition(" ")[2] for line in said.splitlines()} == {"run)"}, said
