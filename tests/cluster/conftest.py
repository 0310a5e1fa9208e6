"""A real API server (etcd and kube-apiserver, no kubelet) for the tests marked `cluster`."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import api_server


@pytest.fixture(scope="session")
def api() -> Iterator[api_server.ApiServer]:
    with api_server.running(controllers=True) as server:
        yield server


@pytest.fixture(scope="session")
def kubeconfig(api: api_server.ApiServer) -> Path:
    """The administrator's kubeconfig of the session's API server."""
    return api.kubeconfig


@pytest.fixture(scope="session")
def custom_resources(api: api_server.ApiServer) -> api_server.ApiServer:
    """The session's API server, with the CRDs installed and served."""
    crds = Path(__file__).parents[2] / "crds"
    command = [str(api.kubectl), "--kubeconfig", str(api.kubeconfig)]
    subprocess.run([*command, "apply", "--server-side", "-f", str(crds)], check=True, timeout=60)
    established = ["wait", "--for=condition=Established", "--timeout=30s", "-f", str(crds)]
    subprocess.run([*command, *established], check=True, timeout=60)
    return api
