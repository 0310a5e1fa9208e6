"""The gateway's metrics, in a registry of its own; the label `model` is a known model, only."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llm_engine.contract.metrics import TIME_TO_FIRST_TOKEN_BUCKETS_S
from llm_operator.api import gateway_metrics as metric_names
from llm_operator.gateway.fleet import Fleet

OVERHEAD_BUCKETS_S = (
    0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.5,
)  # fmt: skip
QUEUE_BUCKETS_S = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    CLIENT_GONE = "client_gone"
    REJECTED = "rejected"  # by us or by the replica, for what it asked or for want of room
    FAILED = "failed"  # a replica failed it


@dataclass(frozen=True)
class ModelMetrics:
    """The metrics of one model, with their label filled in."""

    arrivals: Counter
    queue_s: Histogram
    overhead_s: Histogram
    first_token_s: Histogram
    ended: Callable[[Outcome], None]


class Metrics:
    """Counters and histograms of all models; gauges are read from the fleet when scraped."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._models: dict[str, ModelMetrics] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_FleetGauges(fleet))
        labels, registry = (metric_names.MODEL_LABEL,), self._registry
        self._arrivals = Counter(
            metric_names.ARRIVALS, "Requests received for a known model", labels, registry=registry
        )
        self._requests = Counter(
            metric_names.REQUESTS,
            "Requests ended, by outcome",
            (*labels, metric_names.OUTCOME_LABEL),
            registry=registry,
        )
        self._queue_s = Histogram(
            metric_names.QUEUE_SECONDS,
            "Time held before a replica could take the request",
            labels,
            buckets=QUEUE_BUCKETS_S,
            registry=registry,
        )
        self._overhead_s = Histogram(
            metric_names.OVERHEAD_SECONDS,
            "Time the gateway itself adds: body read to dispatch, first byte to its forwarding",
            labels,
            buckets=OVERHEAD_BUCKETS_S,
            registry=registry,
        )
        self._first_token_s = Histogram(
            metric_names.TIME_TO_FIRST_TOKEN_SECONDS,
            "Arrival to first byte of the answer, as clients see it, time held included",
            labels,
            buckets=TIME_TO_FIRST_TOKEN_BUCKETS_S,
            registry=registry,
        )

    def of(self, model: str) -> ModelMetrics:
        """Return the metrics of a model that is known, or was when its request came."""
        if model not in self._models:
            outcomes = {outcome: self._requests.labels(model, outcome) for outcome in Outcome}
            self._models[model] = ModelMetrics(
                arrivals=self._arrivals.labels(model),
                queue_s=self._queue_s.labels(model),
                overhead_s=self._overhead_s.labels(model),
                first_token_s=self._first_token_s.labels(model),
                ended=lambda outcome: outcomes[outcome].inc(),
            )
        return self._models[model]

    def text(self) -> bytes:
        """Return everything in the Prometheus text format, a new model's zeros included."""
        for model in self._models.keys() - self._fleet.models.keys():
            self._forget(model)
        for model in self._fleet.models:
            self.of(model)
        return generate_latest(self._registry)

    def _forget(self, model: str) -> None:
        del self._models[model]
        for metric in (self._arrivals, self._queue_s, self._overhead_s, self._first_token_s):
            metric.remove(model)
        for outcome in Outcome:
            self._requests.remove(model, outcome)


class _FleetGauges(Collector):
    """What is so just now, for every model: a model without requests shows zeros."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        labels = (metric_names.MODEL_LABEL,)
        held = GaugeMetricFamily(
            metric_names.HELD_REQUESTS, "Requests waiting for a replica", labels=labels
        )
        oldest = GaugeMetricFamily(
            metric_names.OLDEST_WAIT_SECONDS, "Longest wait of those held", labels=labels
        )
        in_flight = GaugeMetricFamily(
            metric_names.IN_FLIGHT_REQUESTS, "Requests sent to a replica, not ended", labels=labels
        )
        now_s = self._fleet.now_s()
        for name, model in self._fleet.models.items():
            since_s = model.line.oldest_since_s()
            held.add_metric([name], len(model.line))
            oldest.add_metric([name], 0.0 if since_s is None else now_s - since_s)
            in_flight.add_metric([name], model.in_flight_requests)
        yield from (held, oldest, in_flight)
