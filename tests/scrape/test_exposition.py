"""Reading the text format: only what is asked for, never a crash."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.contract import metrics as engine
from llm_operator.scrape.exposition import Point, parse
from llm_operator.scrape.readings import (
    ENGINE_NAMES,
    GATEWAY_NAMES,
    GatewayReadings,
    Unreadable,
    engine_reading,
)
from tests.scrape.exporters import EngineMetrics, GatewayMetrics


@pytest.mark.parametrize(
    ("line", "points"),
    [
        ("wanted 3", [Point({}, 3.0)]),
        ("wanted 3 1395066363000", [Point({}, 3.0)]),
        ('wanted{a="b",c="d"} 1.5e3', [Point({"a": "b", "c": "d"}, 1500.0)]),
        ('wanted{a="b",} 1', [Point({"a": "b"}, 1.0)]),
        ('wanted{a="x} y\\" \\\\ \\n"} 1', [Point({"a": 'x} y" \\ \n'}, 1.0)]),
        ("wanted{} +Inf", [Point({}, math.inf)]),
        ('wanted{le="1.0"} 2 # {trace="1"} 0.5', [Point({"le": "1.0"}, 2.0)]),
        ("# wanted 3", []),
        ("wanted", []),
        ("wanted x", []),
        ('wanted{a="b 1', []),
        ('wanted{a="b"', []),
        ("wanted_not 3", []),
        ("", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_is_read_or_passed_over(line: str, points: list[Point]) -> None:
    assert parse(f"other 1\n{line}\n", {"wanted"}).get("wanted", []) == points


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    parse(text + "\nwanted" + text + "\nwanted{" + text, {"wanted", ""})


def test_what_an_engine_writes_is_read_back() -> None:
    metrics = EngineMetrics()
    metrics.gauge(engine.REQUESTS_RUNNING, 3)
    metrics.gauge(engine.TOKENS_IN_FLIGHT, 120)
    metrics.count(engine.GENERATION_TOKENS, 500)
    for value_s in (0.3, 0.8, 3.0):
        metrics.observe(engine.TIME_TO_FIRST_TOKEN, value_s)
    metrics.observe(engine.STEP_SECONDS, 0.07)

    reading = engine_reading(parse(metrics.text(), ENGINE_NAMES), 12.0, "pod/0")

    assert (reading.at_s, reading.incarnation) == (12.0, "pod/0")
    assert (reading.running, reading.waiting, reading.output_tokens) == (3, 0, 500)
    assert reading.tokens_in_flight == 120
    assert reading.first_token.count == 3
    assert reading.first_token.total == pytest.approx(4.1)
    assert reading.first_token.bounds == engine.TIME_TO_FIRST_TOKEN_BUCKETS_S
    assert reading.steps == 1
    assert reading.step_s == pytest.approx(0.07)
    assert reading.outputs is not None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("} 0.0\n", "} NaN\n", "is nan"),
        ("} 0.0\n", "} -1.0\n", "is -1"),
        ("} 0.0\n", "} +Inf\n", "is inf"),
        (engine.REQUESTS_RUNNING, "other", f"{engine.REQUESTS_RUNNING} is missing"),
        ('le="+Inf"', 'le="7"', "is missing"),
        ('le="0.01"', 'le="x"', "has no proper le"),
    ],
    ids=["NaN", "negative", "infinite", "missing", "without its last bucket", "without le"],
)
def test_a_number_that_cannot_be_true_refuses_the_reading(old: str, new: str, said: str) -> None:
    text = EngineMetrics().text().replace(old, new)
    with pytest.raises(Unreadable, match=said):
        engine_reading(parse(text, ENGINE_NAMES), 0.0, "")


def test_a_gateway_tells_models_apart() -> None:
    metrics = GatewayMetrics("a", "b")
    metrics.arrivals.labels("a").inc(7)
    metrics.held.labels("b").set(2)
    readings = GatewayReadings(parse(metrics.text(), GATEWAY_NAMES), 1.0, "g")
    assert (readings.of("a").arrivals, readings.of("a").held) == (7, 0)
    assert (readings.of("b").arrivals, readings.of("b").held) == (0, 2)
    with pytest.raises(Unreadable, match="no metrics of model c"):
        readings.of("c")


def test_the_start_of_the_process_is_part_of_its_incarnation() -> None:
    text = EngineMetrics().text() + "process_start_time_seconds 1.7e9\n"
    assert engine_reading(parse(text, ENGINE_NAMES), 0.0, "x/1").incarnation == "x/1@1700000000.00"
