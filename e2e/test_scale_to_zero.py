"""Story: an idle model stops; the next request waits for it to wake, and is answered."""

import asyncio

import pytest

from e2e.load import Client
from e2e.models import Model

pytestmark = pytest.mark.timeout(300)


async def test_a_request_to_a_stopped_model_is_held_and_answered(
    model: Model, client: Client
) -> None:
    model.patch(scaling={"minReplicas": 0, "idleAfter": "10s"})
    await asyncio.to_thread(model.wait_replicas, 0, 120)

    answers = await asyncio.gather(*(client.ask("What is the capital of France?") for _ in "abc"))
    assert [answer.failure for answer in answers] == [None] * 3
    assert all("Paris" in answer.text for answer in answers)
    assert len(model.ready_pods()) >= 1
