"""Story: the chart is upgraded under load; gateways and operator change, no engine restarts."""

import asyncio

import pytest

from e2e import release
from e2e.load import Client, Load
from e2e.models import Model
from e2e.world import World

pytestmark = pytest.mark.timeout(300)


def engines(model: Model) -> set[tuple[str, int]]:
    """Return the uid and the restarts of every engine pod."""
    return {
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in model.pods()
    }


def gateways(world: World) -> set[str]:
    """Return the uids of the gateway pods."""
    pods = world.kubectl.list("pods", release.NAMESPACE, "app.kubernetes.io/component=gateway")
    return {pod["metadata"]["uid"] for pod in pods}


async def test_an_upgrade_restarts_no_engine_and_fails_no_request(
    world: World, model: Model, client: Client
) -> None:
    engines_before, gateways_before = engines(model), gateways(world)
    load = Load(client, requests_per_s=0.5 / await client.seconds_alone())
    async with load.sending():
        await asyncio.sleep(3)
        changed = {"gateway.logLevel": "warning", "operator.logLevel": "debug"}
        await asyncio.to_thread(release.install, world.helm, world.values | changed)
        await asyncio.sleep(5)
        await asyncio.to_thread(release.install, world.helm, world.values)

    assert gateways(world).isdisjoint(gateways_before)
    assert engines(model) == engines_before
    assert load.failures == []
    assert len(load.answers) > 3
