"""The operator's own metrics. Labels are bounded: a served name, a reason, never free text."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

_MODEL: Final = "model"


class Telemetry:
    """Every metric `llm_operator_*`, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter(
            "llm_operator_reconciles",
            "Looks at an LLMDeployment, by what came of them: rest, acted, retried.",
            ["outcome"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "llm_operator_reconcile_seconds",
            "Duration of a look, its writes included.",
            registry=self.registry,
        )
        self.errors = Counter(
            "llm_operator_errors",
            "Looks that failed: stale, forbidden, rejected, name_taken, unreachable, bug.",
            ["kind"],
            registry=self.registry,
        )
        self.queue_length = self._gauge("queue_length", "LLMDeployments that wait for a look.")
        self.queue_age_seconds = self._gauge(
            "queue_age_seconds", "How long the oldest of them has waited."
        )
        self.watch_lag_seconds = self._gauge(
            "watch_lag_seconds", "How long the watches have owed what a list has shown."
        )
        self.contact_age_seconds = self._gauge(
            "api_contact_age_seconds", "Seconds since the API server last answered."
        )
        self.leader = self._gauge("leader", "1 in the process that acts, else 0.")
        self.decisions = Counter(
            "llm_operator_decisions",
            "Changes of the number of replicas, by reason.",
            [_MODEL, "reason"],
            registry=self.registry,
        )
        self.replicas_wanted = self._gauge("replicas_wanted", "Replicas ordered.", _MODEL)
        self.replicas_ready = self._gauge("replicas_ready", "Replicas that answer.", _MODEL)
        self.cost_per_hour = self._gauge("cost_per_hour", "What its replicas cost.", _MODEL)
        self.attainment_ratio = self._gauge(
            "attainment_ratio", "Share of requests within the targets, 0 to 1.", _MODEL
        )

    def forget(self, model: str) -> None:
        """Drop the series of a model that is gone."""
        for metric in (
            self.replicas_wanted,
            self.replicas_ready,
            self.cost_per_hour,
            self.attainment_ratio,
        ):
            if (model,) in metric._metrics:
                metric.remove(model)

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"llm_operator_{name}", says, labels, registry=self.registry)
