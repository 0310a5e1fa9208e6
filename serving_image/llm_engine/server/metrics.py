"""The engine's metrics, under the names of the contract. One registry per server, no globals.

Counts of the engine are read when somebody scrapes; only times per request are fed as they occur.
Every series exists from the start with the value 0: a series that is absent reads as "no data".
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from llm_engine.contract import metrics as names
from llm_engine.contract.step_work import StepWork
from llm_engine.engine.messages import EngineStats, FinishReason, RequestTimes, StepRecord
from llm_engine.server.backend import Backend
from llm_engine.server.histogram import Histogram
from llm_engine.server.lifecycle import Lifecycle

if TYPE_CHECKING:
    from llm_engine.server.streams import Stream

_FINISH_REASONS: Final[tuple[FinishReason, ...]] = ("stop", "length", "abort", "error")

_GAUGES: Final[tuple[tuple[str, str, Callable[[EngineStats], float]], ...]] = (
    (names.REQUESTS_RUNNING, "Requests in the running batch", lambda s: s.running),
    (names.REQUESTS_WAITING, "Requests that wait for room", lambda s: s.waiting),
    (names.KV_CACHE_USAGE, "Share of KV blocks in use, 0-1", lambda s: s.kv_usage),
    (names.KV_CACHE_USAGE_ALIAS, "Share of KV blocks in use, 0-1", lambda s: s.kv_usage),
    (
        names.PENDING_PREFILL_TOKENS,
        "Prompt tokens not computed yet",
        lambda s: s.pending_prefill_tokens,
    ),
    (names.TOKENS_IN_FLIGHT, "Tokens of all running requests", lambda s: s.tokens_in_flight),
    (names.MAX_CONCURRENCY, "Requests that can run at once", lambda s: s.max_concurrency),
)


class Metrics:
    """Everything that `/metrics` reports; a collector of its own registry.

    Histograms of requests are fed from the event loop, those of steps from the engine's thread.
    """

    def __init__(self, served_name: str, backend: Backend, lifecycle: Lifecycle) -> None:
        self._labels = {names.MODEL_LABEL: served_name}
        self._backend = backend
        self._lifecycle = lifecycle
        self._finished = dict.fromkeys(_FINISH_REASONS, 0)
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._work = StepWork.of(backend.shape, backend.stats().weight_bytes, backend.dtype)
        self._model_bytes = 0.0
        self._flop = 0.0

        first, between = names.TIME_TO_FIRST_TOKEN_BUCKETS_S, names.TIME_PER_TOKEN_BUCKETS_S
        whole, tokens = names.REQUEST_SECONDS_BUCKETS_S, names.TOKENS_BUCKETS
        self.time_to_first_token = Histogram(
            names.TIME_TO_FIRST_TOKEN, "Arrival to first token, seconds", first
        )
        self.inter_token_latency = Histogram(
            names.INTER_TOKEN_LATENCY, "Between two tokens of a request, seconds", between
        )
        self._time_per_output_token = Histogram(
            names.TIME_PER_OUTPUT_TOKEN, "Mean time per token of a request, seconds", between
        )
        self._e2e = Histogram(names.E2E_LATENCY, "Arrival to last token, seconds", whole)
        self._queue = Histogram(names.QUEUE_TIME, "Arrival to first step, seconds", whole)
        self._prefill = Histogram(names.PREFILL_TIME, "First step to first token, seconds", whole)
        self._decode = Histogram(names.DECODE_TIME, "First to last token, seconds", whole)
        self._inference = Histogram(
            names.INFERENCE_TIME, "First step to last token, seconds", whole
        )
        self._prompts = Histogram(names.REQUEST_PROMPT_TOKENS, "Prompt tokens per request", tokens)
        self._outputs = Histogram(
            names.REQUEST_GENERATION_TOKENS, "Output tokens per request", tokens
        )
        self._longest = Histogram(
            names.REQUEST_LONGEST_TOKENS, "Output tokens of a request's longest text", tokens
        )
        self._max_tokens = Histogram(
            names.REQUEST_MAX_TOKENS, "Output tokens that requests allow", tokens
        )
        self._step = Histogram(names.STEP_SECONDS, "Duration of a step, seconds", between)
        self._iteration = Histogram(names.ITERATION_TOKENS, "Tokens computed per step", tokens)
        self._histograms = (
            self.time_to_first_token,
            self.inter_token_latency,
            self._time_per_output_token,
            self._e2e,
            self._queue,
            self._prefill,
            self._decode,
            self._inference,
            self._prompts,
            self._outputs,
            self._longest,
            self._max_tokens,
            self._step,
            self._iteration,
        )
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def step_done(self, step: StepRecord) -> None:
        """Count a step that did work; called from the engine's thread."""
        self._step.observe(step.seconds)
        self._iteration.observe(step.prefill_tokens + step.decode_tokens)
        self._prompt_tokens += step.prefill_tokens - step.recomputed_tokens
        self._generation_tokens += step.sampled_tokens
        tokens = step.prefill_tokens + step.decode_tokens
        self._model_bytes += self._work.model_bytes(tokens, step.context_tokens)
        self._flop += self._work.flop(tokens, step.attended_tokens)

    def request_finished(self, stream: "Stream", times: RequestTimes | None) -> None:
        """Count a request of which the engine has said its last word."""
        self._finished[stream.finish_reason or "abort"] += 1
        self._prompts.observe(len(stream.request.prompt_tokens))
        self._outputs.observe(stream.output_tokens)
        self._longest.observe(stream.output_tokens)
        self._max_tokens.observe(stream.request.sampling.max_tokens)
        if stream.first_token_s is None:
            return
        self._e2e.observe(stream.last_token_s - stream.submitted_s)
        decode_s = stream.last_token_s - stream.first_token_s
        self._decode.observe(decode_s)
        if stream.output_tokens > 1:
            self._time_per_output_token.observe(decode_s / (stream.output_tokens - 1))
        if times is not None:
            self._queue.observe(times.queue_s)
            self._prefill.observe(times.prefill_s)
            self._inference.observe(times.prefill_s + decode_s)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every family (prometheus_client.Collector)."""
        stats = self._backend.stats()
        for name, documentation, read in _GAUGES:
            yield self._gauge(name, documentation, read(stats))
        yield self._gauge(names.DRAINING, "1 while draining", float(self._lifecycle.draining))
        yield self._startup()
        yield self._cache_config(stats)
        yield from self._counters(stats)
        for histogram in self._histograms:
            yield histogram.family(self._labels)
        yield self.inter_token_latency.family(self._labels, names.INTER_TOKEN_LATENCY_ALIAS)

    def _gauge(self, name: str, documentation: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, documentation, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _startup(self) -> Metric:
        family = GaugeMetricFamily(
            names.STARTUP_SECONDS, "Seconds of the start", labels=[*self._labels, "phase"]
        )
        for phase, seconds in self._lifecycle.seconds_by_phase().items():
            family.add_metric([*self._labels.values(), phase], seconds)
        return family

    def _cache_config(self, stats: EngineStats) -> Metric:
        settings = {
            "block_size": str(stats.block_tokens),
            "num_gpu_blocks": str(stats.blocks),
            "cache_dtype": self._backend.dtype,
            "enable_prefix_caching": str(stats.keeps_prefixes),
        }
        family = GaugeMetricFamily(
            names.CACHE_CONFIG_INFO, "Settings of the KV cache", labels=[*self._labels, *settings]
        )
        family.add_metric([*self._labels.values(), *settings.values()], 1)
        return family

    def _counters(self, stats: EngineStats) -> Iterable[Metric]:
        counts = (
            (names.PROMPT_TOKENS, "Prompt tokens computed", self._prompt_tokens),
            (names.GENERATION_TOKENS, "Output tokens computed", self._generation_tokens),
            (names.PREEMPTIONS, "Requests put back to make room", stats.preemptions),
            (names.RECOMPUTED_TOKENS, "Tokens computed twice", stats.recomputed_tokens),
            (
                names.PREFIX_CACHE_QUERIES,
                "Prompt tokens looked for in the prefix cache",
                stats.prefix_queried_tokens,
            ),
            (names.PREFIX_CACHE_HITS, "Prompt tokens found there", stats.prefix_found_tokens),
            (
                names.PREFIX_CACHE_QUERIES_ALIAS,
                "Prompt tokens looked for in the prefix cache",
                stats.prefix_queried_tokens,
            ),
            (names.PREFIX_CACHE_HITS_ALIAS, "Prompt tokens found there", stats.prefix_found_tokens),
            (
                names.MODEL_BYTES,
                "Weights, keys, values that steps had to read",
                self._model_bytes,
            ),
            (names.MODEL_FLOP, "Floating-point operations that steps had to do", self._flop),
        )
        for name, documentation, count in counts:
            family = CounterMetricFamily(name, documentation, labels=list(self._labels))
            family.add_metric(list(self._labels.values()), count)
            yield family
        family = CounterMetricFamily(
            names.REQUEST_SUCCESS, "Requests ended", labels=[*self._labels, "finished_reason"]
        )
        for reason, count in self._finished.items():
            family.add_metric([*self._labels.values(), reason], count)
        yield family
