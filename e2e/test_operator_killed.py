"""Story: the operator dies in the middle of a scale-up, and the next one finishes the work."""

import pytest

from e2e import release
from e2e.models import LABEL, Model
from e2e.world import World

pytestmark = pytest.mark.timeout(300)

KINDS = "deployments,replicasets,services,jobs,poddisruptionbudgets,networkpolicies"


def test_a_killed_operator_leaves_no_duplicate_and_no_orphan(world: World, model: Model) -> None:
    world.kill_operator(lambda: model.patch(scaling={"minReplicas": 3}))
    model.wait_replicas(3, 150)
    model.wait_ready(60)

    seen = model.seen()
    assert seen is not None
    children = world.kubectl.list(KINDS, model.namespace, f"{LABEL}={model.name}")
    owners = {seen["metadata"]["uid"]} | {child["metadata"]["uid"] for child in children}
    for child in [*children, *model.pods()]:
        [owner] = child["metadata"]["ownerReferences"]
        assert owner["uid"] in owners, child["metadata"]["name"]
    kinds = [child["kind"] for child in children if child["kind"] not in ("ReplicaSet", "Job")]
    assert sorted(kinds) == sorted(set(kinds))


@pytest.mark.usefixtures("model")
def test_the_next_operator_leads(world: World) -> None:
    before = world.kubectl.get("lease", "llm-operator", release.NAMESPACE)
    world.kill_operator(lambda: None)
    after = world.kubectl.get("lease", "llm-operator", release.NAMESPACE)
    assert before is not None
    assert after is not None
    assert before["spec"]["holderIdentity"] != after["spec"]["holderIdentity"]
