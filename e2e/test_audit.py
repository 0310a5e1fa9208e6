"""Story: the API server's audit log is the judge of who asked for what."""

import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from e2e import release
from e2e.cluster import places
from e2e.models import Model
from e2e.world import World

SETTLE_S = 10
REST_S = 30
READS = {"get", "list", "watch"}


@pytest.fixture
def audited(world: World, model: Model) -> World:
    """The world after the release has had some work to do."""
    if not world.embedded:
        pytest.skip("only the embedded cluster shows its audit log")
    assert model.ready_pods()
    return world


def requests(since: datetime | None = None) -> list[dict[str, Any]]:
    """Return the finished requests of the release's ServiceAccounts."""
    ours = f"system:serviceaccount:{release.NAMESPACE}:{release.NAME}-"
    found = []
    for line in places.here().audit_log.read_text().splitlines():
        entry = json.loads(line)
        if entry["stage"] != "ResponseComplete" or not entry["user"]["username"].startswith(ours):
            continue
        if since is None or datetime.fromisoformat(entry["stageTimestamp"]) >= since:
            found.append(entry)
    return found


def what(entry: dict[str, Any]) -> str:
    """Return the verb and the resource of a request."""
    of = entry.get("objectRef", {})
    resource = "/".join(filter(None, (of.get("resource"), of.get("subresource"))))
    return f"{entry['verb']} {resource} as {entry['user']['username'].rpartition(':')[2]}"


@pytest.mark.usefixtures("audited")
def test_nothing_asked_for_was_forbidden() -> None:
    asked = requests()
    assert {entry["user"]["username"].rpartition(":")[2] for entry in asked} == {
        release.OPERATOR,
        release.GATEWAY,
    }
    refused = Counter(what(e) for e in asked if e["responseStatus"]["code"] in (401, 403))
    assert not refused


@pytest.mark.usefixtures("audited")
def test_a_settled_model_causes_no_writes() -> None:
    time.sleep(SETTLE_S)
    since = datetime.now(UTC)
    time.sleep(REST_S)
    asked = [entry for entry in requests(since) if entry["objectRef"].get("resource") != "leases"]
    assert Counter(what(entry) for entry in asked if entry["verb"] not in READS) == {}
