"""Where the gateways are: whoever scales must hear what they hold."""

from collections.abc import AsyncIterator
from typing import Any

from llm_operator.cluster.watch import Changed, Deleted, Resource, Snapshot, watch
from llm_operator.reconcile.pods import Pod, pod_of


async def gateway_pods(client: Any, namespace: str, selector: str) -> AsyncIterator[list[Pod]]:
    """Yield all gateway pods each time that something about them has changed; never ends."""
    pods: dict[str, Pod] = {}
    events = watch(client, Resource("", "v1", "pods"), namespace=namespace, label_selector=selector)
    async for event in events:
        match event:
            case Snapshot(objects):
                pods = {pod.uid: pod for pod in map(pod_of, objects)}
            case Changed(raw):
                pod = pod_of(raw)
                pods[pod.uid] = pod
            case Deleted(raw):
                pods.pop(pod_of(raw).uid, None)
        yield list(pods.values())
