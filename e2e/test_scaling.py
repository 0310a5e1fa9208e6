"""Story: more load than one replica can bear brings more; when it goes they go; nobody notices."""

import asyncio

import pytest

from e2e.load import Client, Load
from e2e.models import Model

pytestmark = pytest.mark.timeout(420)


async def test_replicas_follow_the_load_and_no_stream_fails(model: Model, client: Client) -> None:
    model.patch(scaling={"maxReplicas": 3})
    answer_s = await client.seconds_alone()
    load = Load(client, requests_per_s=2.5 / answer_s)
    async with load.sending():
        await asyncio.to_thread(
            model.wait, "a second replica is ready", lambda: len(model.ready_pods()) >= 2, 120
        )
        await asyncio.sleep(10)  # both serve
        load.requests_per_s = 0.1 / answer_s
        await asyncio.to_thread(model.wait_replicas, 1, 180)

    assert load.failures == []
    assert load.unsent == 0
    assert len(load.answers) == load.sent
    up, *_, down = sorted(model.status()["decisions"], key=lambda decision: decision["time"])[-3:]
    assert down["to"] < down["from"], (up, down)
    assert all(decision["because"] for decision in (up, down))
