"""From the last request to zero replicas, and from a held request back."""

from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.samples import EngineReading, GatewayReading, Samples, Series
from tests.reconcile.world import World, a_deployment

NOTHING = Histogram((1.0,), (0.0, 0.0), 0.0)


def samples(now_s: float, replicas: int, held: float = 0.0) -> Samples:
    """Half a minute of readings in which nobody asks, or some wait at the gateway."""
    times_s = [now_s - ago_s for ago_s in range(30, -1, -1)]
    engine = Series(
        tuple(EngineReading(at_s, "e", 0, 0, 0, 0, NOTHING, NOTHING) for at_s in times_s)
    )
    gateway = Series(tuple(GatewayReading(at_s, "g", 0, held, 0) for at_s in times_s))
    return Samples(now_s, {f"replica-{n}": engine for n in range(replicas)}, {"gateway": gateway})


def wait(world: World, seconds: float, replicas: int, held: float = 0.0) -> None:
    end_s = world.now_s + seconds
    while world.now_s < end_s:
        world.now_s += 5
        world.samples = samples(world.now_s, replicas, held)
        world.look()


def an_idle_world() -> World:
    scaling = {"minReplicas": 0, "maxReplicas": 2, "idleAfter": "1m"}
    world = World(deployment=a_deployment(scaling=scaling)).serving()
    wait(world, 90, replicas=1)
    return world


def test_a_model_that_nobody_uses_stops_and_says_it_is_idle() -> None:
    world = an_idle_world()
    assert world.engine["spec"]["replicas"] == 0
    world.children.pop(("Pod", "replica-0"))
    world.engine["status"] = {"replicas": 0}
    wait(world, 10, replicas=0)
    assert world.says("Ready") == "False Idle"
    assert "wakes" in world.condition("Ready")["message"]
    assert world.says("Progressing") == "False Settled"
    assert [n.reason for n in world.notes if "1 to 0" in n.message] == ["ScaledDown"]
    assert not [n for n in world.notes if n.reason == "NotReady"], "idle is no trouble"


def test_a_held_request_brings_a_replica_at_once() -> None:
    world = an_idle_world()
    world.children.pop(("Pod", "replica-0"))
    world.samples = samples(world.now_s, replicas=0, held=1)
    world.look()
    assert world.engine["spec"]["replicas"] == 1


def test_the_last_replica_stays_while_the_gateways_cannot_be_heard() -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 2, "idleAfter": "1m"}
    world = World(deployment=a_deployment(scaling=scaling)).serving()
    for _ in range(120):
        world.now_s += 5
        seen = samples(world.now_s, replicas=1)
        world.samples = Samples(seen.taken_at_s, seen.engines, {"gateway": Series((), "refused")})
        world.look()
    assert world.engine["spec"]["replicas"] == 1
    assert world.says("MetricsAvailable").startswith("False")


def test_measurements_alone_are_written_once_in_half_a_minute() -> None:
    world = World(deployment=a_deployment(scaling={"maxReplicas": 2})).serving()
    wait(world, 60, replicas=1)
    reports = world.reports
    for turn in range(24):  # two minutes in which running requests change at every look
        world.now_s += 5
        seen = samples(world.now_s, replicas=1)
        busy = tuple(
            EngineReading(r.at_s, "e", 1 + turn % 3, 0, 0, 0, NOTHING, NOTHING)
            for r in seen.engines["replica-0"].readings
        )
        world.samples = Samples(seen.taken_at_s, {"replica-0": Series(busy)}, seen.gateways)
        world.look()
    assert 1 <= world.reports - reports <= 5
