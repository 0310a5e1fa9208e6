"""One cluster, one release and one model for all stories; each story finds them as new."""

import os
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Final

import aiohttp
import pytest

from e2e import release
from e2e.cluster.target import Images, Target, bring_up, images, target
from e2e.failure_report import write_report
from e2e.kubectl import Kubectl
from e2e.load import Client
from e2e.models import Model
from e2e.release import Helm
from e2e.weights import put_weights
from e2e.world import MODEL, NAMESPACE, World

RESTRICTED: Final = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")
}


@pytest.fixture(scope="session")
def cluster() -> Target:
    """The embedded cluster, started where it is not; or the one that CLUSTER=current names."""
    found = target(os.environ)
    bring_up(found)
    return found


@pytest.fixture(scope="session")
def built(cluster: Target) -> Images:
    """Both images, where the cluster's nodes find them."""
    return images(cluster)


@pytest.fixture(scope="session")
def world(cluster: Target, built: Images) -> Iterator[World]:
    """The chart installed, and the weights on a volume, in namespaces that enforce restricted."""
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig, cluster.context)
    helm = Helm(cluster.helm, cluster.kubeconfig, cluster.context)
    for namespace in (NAMESPACE, release.NAMESPACE):
        kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": namespace, "labels": RESTRICTED},
            }
        )
    values = release.image_values(built.control, built.engine) | {"test.model": MODEL}
    release.install(helm, values)
    put_weights(kubectl, NAMESPACE, built.control)
    with release.gateway(kubectl, reachable=cluster.embedded) as url:
        yield World(kubectl, helm, values, url, cluster.embedded)


@pytest.fixture
def model(world: World) -> Model:
    """SmolLM2 with one ready replica, whatever the story before has done to it."""
    model = world.apply_example(MODEL)
    model.wait_ready(180)
    model.wait_replicas(1, 120)
    return model


@pytest.fixture
async def client(world: World, model: Model) -> AsyncIterator[Client]:
    """A client of the model, through the gateway."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, world.gateway_url, model.name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """When a story fails, keep what the cluster looked like."""
    report = yield
    if report.failed and call.when in ("setup", "call"):
        found = getattr(item, "funcargs", {}).get("cluster") or target(os.environ)
        kubectl = Kubectl(found.kubectl, found.kubeconfig, found.context)
        folder = write_report(kubectl, item.name, [release.NAMESPACE, NAMESPACE])
        report.sections.append(("cluster", f"nodes, pods, events, objects and logs: {folder}"))
    return report
