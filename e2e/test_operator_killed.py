"""Story: the operator dies in the middle of a scale-up, and the next one finishes the work."""

import pytest

from e2e import release
from e2e.kubectl import eventually
from e2e.models import LABEL, Model
from e2e.world import World

pytestmark = pytest.mark.timeout(300)

KINDS = "deployments,replicasets,services,jobs,poddisruptionbudgets,networkpolicies"


def test_a_killed_operator_leaves_no_duplicate_and_no_orphan(world: World, model: Model) -> None:
    world.kill_operator(lambda: model.patch(scaling={"minReplicas": 3, "maxReplicas": 3}))
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
def test_the_next_operator_leads_once_the_lease_has_run_out(world: World) -> None:
    def holder() -> str:
        lease = world.kubectl.get("lease", "llm-operator", release.NAMESPACE)
        return str(lease and lease["spec"]["holderIdentity"])

    before = holder()
    world.kill_operator(lambda: None)
    eventually("another leads", lambda: holder() not in (before, "None", ""), timeout_s=45)
