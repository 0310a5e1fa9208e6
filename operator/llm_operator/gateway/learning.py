"""Learn models and replicas by watching the cluster; what is known stays when nobody answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from llm_operator.api import names
from llm_operator.cluster.connection import connect
from llm_operator.cluster.watch import Event, Resource, WatchTiming, watch
from llm_operator.gateway.endpoints import ClusterView
from llm_operator.gateway.fleet import Fleet

DEPLOYMENTS = Resource(names.GROUP, names.VERSION, names.DEPLOYMENT_PLURAL)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")

# A model that has just become ready should not wait for our back-off.
TIMING = WatchTiming(longest_backoff_s=5.0)


async def learn(fleet: Fleet, kubeconfig: Path | None = None, context: str | None = None) -> None:
    """Keep the fleet in step with the whole cluster until cancelled."""
    view = ClusterView()

    async def follow(
        see: Callable[[Event], None], resource: Resource, label_selector: str | None = None
    ) -> None:
        async for event in watch(client, resource, label_selector=label_selector, timing=TIMING):
            see(event)
            if view.complete:
                fleet.update(view.served())

    async with connect(kubeconfig, context) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(view.deployments.see, DEPLOYMENTS))
        tasks.create_task(follow(view.slices.see, ENDPOINT_SLICES, names.DEPLOYMENT_LABEL))
