"""What was read, what was not, and what that says about the load."""

from dataclasses import replace

import pytest

from llm_operator.scaling import Load, Replica, Samples, decide_replicas, load_of
from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.samples import EngineReading, GatewayReading, Series
from llm_operator.scaling.state import ScalingState
from tests.scaling.builders import LEARNED, START_S, a_rule

NOW_S = 5000.0
NO_TIMES = Histogram((1.0,), (0.0, 0.0), 0.0)


def engine(
    age_s: float, tokens: float = 0.0, incarnation: str = "a", **changes: float
) -> EngineReading:
    reading = EngineReading(
        at_s=NOW_S - age_s,
        incarnation=incarnation,
        running=1.0,
        waiting=0.0,
        prompt_tokens=tokens,
        output_tokens=tokens,
        first_token=NO_TIMES,
        per_token=NO_TIMES,
    )
    return replace(reading, **changes)  # type: ignore[arg-type]


def gateway(
    age_s: float, arrivals: float, incarnation: str = "a", held: float = 0
) -> GatewayReading:
    return GatewayReading(NOW_S - age_s, incarnation, arrivals, held=held, in_flight=0)


def an_engine_series(newest_age_s: float = 1.0) -> Series[EngineReading]:
    ages = [newest_age_s + 2 * i for i in range(30, -1, -1)]
    return Series(tuple(engine(age_s, tokens=1000 - 10 * age_s) for age_s in ages))


def a_gateway_series(per_s: float = 2.0, newest_age_s: float = 0.5) -> Series[GatewayReading]:
    ages = [newest_age_s + i for i in range(80, -1, -1)]
    return Series(tuple(gateway(age_s, per_s * (100 - age_s)) for age_s in ages))


def load(engines: dict[str, Series[EngineReading]], **changes: Series[GatewayReading]) -> Load:
    replicas = [Replica("r0", ready=True), Replica("r1", ready=True)]
    gateways = {"g0": a_gateway_series(), "g1": a_gateway_series()} | changes
    return load_of(replicas, 2, Samples(NOW_S, engines, gateways))


WHOLE = {"r0": an_engine_series(), "r1": an_engine_series()}


def test_rates_of_all_gateways_and_engines_are_summed() -> None:
    whole = load(WHOLE)
    assert whole.complete
    assert [round(seen.per_s, 2) for seen in whole.arrivals] == [4, 4, 4, 4]
    assert whole.output_tokens_per_s == pytest.approx(20)
    assert whole.running == 2


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (Series(problem="connection refused"), "ScrapeFailed"),
        (replace(an_engine_series(newest_age_s=20), problem="vllm:x is nan"), "SamplesStale"),
        (an_engine_series(newest_age_s=9), "SamplesStale"),
        (an_engine_series(newest_age_s=-5), "SamplesStale"),
        (Series(an_engine_series().readings[-3:]), "SamplesYoung"),
        (Series(), "NotYetScraped"),
    ],
    ids=[
        "never answered",
        "answers with what is not a number",
        "has not answered three times",
        "was read in the future",
        "has been seen for four seconds",
        "was not looked at yet",
    ],
)
def test_one_replica_without_data_makes_the_whole_incomplete(
    series: Series[EngineReading], reason: str
) -> None:
    partial = load({"r0": an_engine_series(), "r1": series})
    assert not partial.complete
    assert [(gap.name, gap.reason) for gap in partial.gaps] == [("r1", reason)]
    # the others are read all the same
    assert partial.output_tokens_per_s >= 10
    assert partial.arrivals[-1].per_s == pytest.approx(4, rel=0.02)


def test_a_replica_that_was_missed_once_is_still_known() -> None:
    missed = replace(an_engine_series(newest_age_s=3), problem="no answer within 2 s")
    assert load({"r0": missed, "r1": an_engine_series()}).complete


def test_one_gateway_without_data_makes_the_whole_incomplete() -> None:
    partial = load(WHOLE, g1=Series(problem="it has no metrics of model m"))
    assert [gap.name for gap in partial.gaps] == ["g1"]
    assert partial.arrivals[-1].per_s == pytest.approx(2)


def test_no_gateway_at_all_is_no_proof_that_nobody_asks() -> None:
    alone = load_of([], 0, Samples(NOW_S))
    assert not alone.complete
    assert alone.gaps[0].reason == "NoGateway"


def test_replicas_that_start_or_stop_need_no_data() -> None:
    replicas = [
        Replica("r0", ready=True),
        Replica("r1", ready=False),
        Replica("r2", ready=True, terminating=True),
    ]
    some = load_of(replicas, 2, Samples(NOW_S, WHOLE, {"g0": a_gateway_series()}))
    assert some.complete
    assert (some.ready, some.starting, some.terminating, some.existing) == (1, 1, 1, 3)


def restarted(incarnation: str) -> Series[EngineReading]:
    old = an_engine_series(newest_age_s=3).readings
    return Series((*old, engine(1, tokens=30.0, incarnation=incarnation)))


def test_a_restarted_replica_counts_as_zero_and_is_known() -> None:
    after = load({"r0": an_engine_series(), "r1": restarted("b")})
    assert after.complete
    assert after.output_tokens_per_s == pytest.approx(10)


def test_a_counter_that_falls_without_a_restart_is_not_trusted() -> None:
    after = load({"r0": an_engine_series(), "r1": restarted("a")})
    assert not after.complete
    assert after.output_tokens_per_s == pytest.approx(10)


def test_emptiest_replicas_go_first_and_those_without_data_last() -> None:
    replicas = [Replica(f"r{i}", ready=i != 3) for i in range(4)]
    busy = Series(tuple(replace(r, running=9.0) for r in an_engine_series().readings))
    engines = {"r0": busy, "r1": an_engine_series(), "r2": Series[EngineReading]()}
    some = load_of(replicas, 4, Samples(NOW_S, engines, {"g0": a_gateway_series()}))
    assert some.emptiest_first == ("r3", "r1", "r0", "r2")


def test_histograms_of_the_last_minute_are_differences() -> None:
    old = replace(engine(50), first_token=Histogram((1.0, 2.0), (5.0, 5.0, 5.0), 2.5))
    new = replace(engine(1), first_token=Histogram((1.0, 2.0), (5.0, 9.0, 10.0), 12.0))
    some = load({"r0": Series((old, new)), "r1": an_engine_series()})
    assert some.seen_first_token is not None
    assert some.seen_first_token.count == 5


def test_ten_minutes_of_blackout_seen_through_samples_remove_nothing() -> None:
    rule, state = a_rule(min_replicas=0, idle_after_s=60.0), ScalingState(learned=LEARNED)
    for look in range(120):
        blind = load_of(
            [Replica("r0", ready=True), Replica("r1", ready=True)],
            2,
            Samples(NOW_S + 5 * look, WHOLE, {"g0": a_gateway_series(per_s=0.5)}),
        )
        decision = decide_replicas(rule, blind, state, START_S + 5 * look)
        state = decision.state
        assert decision.replicas == 2
    assert decision.metrics_available.holds is False
