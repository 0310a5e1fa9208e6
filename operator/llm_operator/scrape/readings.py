"""Points of an exposition -> one reading.

A number that cannot be true refuses the whole reading: what is not a number is never zero.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from llm_engine.contract import metrics as engine
from llm_operator.api import gateway_metrics as gateway
from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.samples import EngineReading, GatewayReading
from llm_operator.scrape.exposition import Point

PROCESS_START: Final = "process_start_time_seconds"

Points = Mapping[str, Sequence[Point]]


class Unreadable(Exception):
    """The metrics lack a number that is needed, or hold one that cannot be true."""


def _counter(name: str) -> str:
    return f"{name}_total"


def _histogram_names(name: str) -> tuple[str, str]:
    return (f"{name}_bucket", f"{name}_sum")


ENGINE_NAMES: Final = frozenset(
    (
        PROCESS_START,
        engine.REQUESTS_RUNNING,
        engine.REQUESTS_WAITING,
        engine.TOKENS_IN_FLIGHT,
        engine.MAX_CONCURRENCY,
        _counter(engine.PROMPT_TOKENS),
        _counter(engine.GENERATION_TOKENS),
        f"{engine.STEP_SECONDS}_count",
        f"{engine.STEP_SECONDS}_sum",
        *_histogram_names(engine.TIME_TO_FIRST_TOKEN),
        *_histogram_names(engine.TIME_PER_OUTPUT_TOKEN),
        *_histogram_names(engine.INTER_TOKEN_LATENCY),
        *_histogram_names(engine.REQUEST_PROMPT_TOKENS),
        *_histogram_names(engine.REQUEST_GENERATION_TOKENS),
    )
)
GATEWAY_NAMES: Final = frozenset(
    (
        PROCESS_START,
        _counter(gateway.ARRIVALS),
        gateway.HELD_REQUESTS,
        gateway.IN_FLIGHT_REQUESTS,
        *_histogram_names(gateway.TIME_TO_FIRST_TOKEN_SECONDS),
    )
)


def engine_reading(points: Points, at_s: float, incarnation: str) -> EngineReading:
    """Return the reading of an engine, which serves one model, whatever its label says.

    Raises Unreadable, naming the metric.
    """
    return EngineReading(
        at_s=at_s,
        incarnation=_incarnation(points, incarnation),
        running=_value(points, engine.REQUESTS_RUNNING),
        waiting=_value(points, engine.REQUESTS_WAITING),
        prompt_tokens=_value(points, _counter(engine.PROMPT_TOKENS)),
        output_tokens=_value(points, _counter(engine.GENERATION_TOKENS)),
        first_token=_histogram(points, engine.TIME_TO_FIRST_TOKEN),
        per_token=_histogram(points, engine.TIME_PER_OUTPUT_TOKEN),
        inter_token=_optional_histogram(points, engine.INTER_TOKEN_LATENCY),
        prompts=_optional_histogram(points, engine.REQUEST_PROMPT_TOKENS),
        outputs=_optional_histogram(points, engine.REQUEST_GENERATION_TOKENS),
        steps=_optional(points, f"{engine.STEP_SECONDS}_count"),
        step_s=_optional(points, f"{engine.STEP_SECONDS}_sum"),
        tokens_in_flight=_optional(points, engine.TOKENS_IN_FLIGHT),
        max_concurrency=_optional(points, engine.MAX_CONCURRENCY),
    )


class GatewayReadings:
    """One look at a gateway, from which the reading of each model can be built."""

    def __init__(self, points: Points, at_s: float, incarnation: str) -> None:
        self._at_s = at_s
        self._incarnation = _incarnation(points, incarnation)
        self._by_model: dict[str, dict[str, list[Point]]] = {}
        for name, of_name in points.items():
            for point in of_name:
                model = point.labels.get(gateway.MODEL_LABEL)
                if model is not None:
                    self._by_model.setdefault(model, {}).setdefault(name, []).append(point)

    def of(self, served_name: str) -> GatewayReading:
        """Return the reading of one model; raises Unreadable, naming the metric."""
        points = self._by_model.get(served_name)
        if points is None:
            raise Unreadable(f"it has no metrics of model {served_name}")
        return GatewayReading(
            at_s=self._at_s,
            incarnation=self._incarnation,
            arrivals=_value(points, _counter(gateway.ARRIVALS)),
            held=_value(points, gateway.HELD_REQUESTS),
            in_flight=_value(points, gateway.IN_FLIGHT_REQUESTS),
            first_token=_optional_histogram(points, gateway.TIME_TO_FIRST_TOKEN_SECONDS),
        )


def _incarnation(points: Points, incarnation: str) -> str:
    """Return what changes when the process restarts: as Kubernetes and as the process say."""
    started = points.get(PROCESS_START)
    return f"{incarnation}@{started[0].value:.2f}" if started else incarnation


def _value(points: Points, name: str) -> float:
    """Return the sum of a metric over its label sets; every part must be a number >= 0."""
    of_name = points.get(name)
    if not of_name:
        raise Unreadable(f"{name} is missing")
    return sum(_true(name, point.value) for point in of_name)


def _optional(points: Points, name: str) -> float | None:
    return _value(points, name) if name in points else None


def _true(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise Unreadable(f"{name} is {value:g}")
    return value


def _optional_histogram(points: Points, name: str) -> Histogram | None:
    return _histogram(points, name) if f"{name}_bucket" in points else None


def _histogram(points: Points, name: str) -> Histogram:
    """Return a histogram, summed over its label sets."""
    bucket, total = _histogram_names(name)
    by_bound: dict[float, float] = {}
    for point in points.get(bucket, ()):
        try:
            bound = float(point.labels["le"])
        except (KeyError, ValueError):
            raise Unreadable(f"{bucket} has no proper le") from None
        by_bound[bound] = by_bound.get(bound, 0.0) + _true(bucket, point.value)
    if math.inf not in by_bound:
        raise Unreadable(f"{bucket} is missing")
    bounds = sorted(by_bound)
    counts = tuple(by_bound[bound] for bound in bounds)
    if any(after < before for before, after in pairwise(counts)):
        raise Unreadable(f"{bucket} falls from one bound to the next")
    return Histogram(tuple(bounds[:-1]), counts, _value(points, total))
