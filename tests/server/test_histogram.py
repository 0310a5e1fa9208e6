from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Reference

from llm_engine.server.histogram import Histogram

BOUNDS = (0.001, 0.5, 1.0, 20.0)


@given(st.lists(st.sampled_from([0.0, 0.001, 0.0011, 0.5, 0.75, 1.0, 19.0, 20.0, 21.0])))
def test_it_says_what_the_official_histogram_says(amounts: list[float]) -> None:
    ours = Histogram("h", "doc", BOUNDS)
    registry = CollectorRegistry()
    reference = Reference("h", "doc", ["m"], buckets=BOUNDS, registry=registry).labels("x")
    for amount in amounts:
        ours.observe(amount)
        reference.observe(amount)

    class Collector:
        def collect(self) -> list[object]:
            return [ours.family({"m": "x"})]

    ours_registry = CollectorRegistry()
    ours_registry.register(Collector())  # type: ignore[arg-type]
    theirs = generate_latest(registry).decode()
    without_created = theirs.split("# HELP h_created")[0]
    assert generate_latest(ours_registry).decode() == without_created


def test_one_call_may_count_several_times() -> None:
    once, thrice = Histogram("h", "doc", BOUNDS), Histogram("h", "doc", BOUNDS)
    for _ in range(3):
        once.observe(0.4)
    thrice.observe(0.4, times=3)
    assert [s.value for s in thrice.family({}).samples] == [
        s.value for s in once.family({}).samples
    ]
