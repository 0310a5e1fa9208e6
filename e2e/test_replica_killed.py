"""Story: a replica dies at full work; the others serve on, and it is replaced."""

import asyncio
import time

import pytest

from e2e.load import Answer, Client, Load
from e2e.models import Model

pytestmark = pytest.mark.timeout(300)


async def test_others_serve_while_a_killed_replica_is_replaced(
    model: Model, client: Client
) -> None:
    model.patch(scaling={"minReplicas": 2, "maxReplicas": 2})
    await asyncio.to_thread(model.wait_replicas, 2, 120)
    load = Load(client, requests_per_s=1 / await client.seconds_alone())
    killed_s = float("inf")

    def asked_later() -> list[Answer]:
        return [answer for answer in load.answers if answer.sent_s > killed_s + 1]

    async with load.sending():
        await asyncio.sleep(5)
        victim = model.ready_pods()[0]["metadata"]
        killed_s = time.monotonic()
        words = ("delete", "pod", victim["name"], "-n", model.namespace)
        await asyncio.to_thread(model.kubectl, *words, "--grace-period=0", "--force")

        def replaced() -> bool:
            names = {pod["metadata"]["name"] for pod in model.ready_pods()}
            return len(names) == 2 and victim["name"] not in names

        await asyncio.to_thread(model.wait, "the replica is replaced", replaced, 120)
        # However quickly that went: enough must have asked to say something of them.
        await asyncio.to_thread(model.wait, "8 more answers", lambda: len(asked_later()) >= 8, 90)

    # Streams that the dead replica had begun cannot be saved; whoever asks later must not notice.
    assert [answer.failure for answer in asked_later() if answer.failure] == []
    begun = [a for a in load.answers if a.failure and a.sent_s <= killed_s + 1]
    assert len(begun) <= 4, [answer.failure for answer in begun]
