"""Story: the operator is away for long; models go on, and can even be deleted."""

import time
from collections.abc import Iterator

import pytest

from e2e import release
from e2e.kubectl import eventually
from e2e.load import Client
from e2e.models import LABEL, Model
from e2e.world import World

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def second(world: World, model: Model) -> Iterator[Model]:
    """Another model, that may be deleted."""
    assert model.seen()
    second = world.apply_example("second")
    second.wait_ready(120)
    yield second
    world.delete(second)


@pytest.fixture
def _no_operator(world: World, second: Model) -> Iterator[None]:
    assert second.seen()
    world.scale_operator(0)
    yield
    world.scale_operator(1)


@pytest.mark.usefixtures("_no_operator")
async def test_traffic_and_deletion_need_no_operator(
    world: World, second: Model, client: Client
) -> None:
    answer = await client.ask("What is the capital of France?")
    assert answer.failure is None

    start_s = time.monotonic()
    world.kubectl("delete", "llmd", second.name, "-n", second.namespace, "--timeout=30s")
    assert time.monotonic() - start_s < 5, "no finalizer may hold the deletion"

    kinds = "deployments,services,jobs,poddisruptionbudgets,networkpolicies,pods"
    eventually(
        "its children are gone",
        lambda: not world.kubectl.list(kinds, second.namespace, f"{LABEL}={second.name}"),
        timeout_s=60,
    )
    assert world.kubectl.get("deployment", release.OPERATOR, release.NAMESPACE)
