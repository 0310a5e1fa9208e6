"""What other tools read of `/metrics`, each row with its source, held against what we expose.

A consumer finds nothing, without any error, when a name, a type or a label differs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.served import Served

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


@dataclass(frozen=True)
class Row:
    """A sample that a consumer reads, as on the wire, with the labels it selects or sums by."""

    consumer: str
    sample: str
    kind: str
    labels: frozenset[str] = frozenset({"model_name"})


def rows(consumer: str, samples: dict[str, str]) -> Iterable[Row]:
    """Return rows of `sample -> type` or, for labels beyond model_name, `sample -> type label…`."""
    for sample, words in samples.items():
        kind, *labels = words.split()
        yield Row(consumer, sample, kind, frozenset({"model_name", *labels}))


def parts(*names: str) -> dict[str, str]:
    """Return what quantiles and averages of histograms are made from."""
    return {
        f"vllm:{name}_{part}": f"{HISTOGRAM} le" if part == "bucket" else HISTOGRAM
        for name in names
        for part in ("bucket", "sum", "count")
    }


KEDA: Final = rows(
    # vllm-project/production-stack, docs/source/use_cases/autoscaling-keda.rst; kserve/website,
    # docs on autoscaling by LLM metrics (waiting requests, KV cache usage); Azure/AKS's guide to
    # kaito-project/keda-kaito-scaler (waiting requests, read from the pods without Prometheus)
    "KEDA's guides for vLLM",
    {
        "vllm:num_requests_running": GAUGE,
        "vllm:num_requests_waiting": GAUGE,
        "vllm:kv_cache_usage_perc": GAUGE,
        "vllm:gpu_cache_usage_perc": GAUGE,
    },
)
GATEWAY_API: Final = rows(
    # kubernetes-sigs/gateway-api-inference-extension, docs/proposals/003-model-server-protocol
    "Gateway API Inference Extension, model server protocol",
    {
        "vllm:num_requests_waiting": GAUGE,
        "vllm:num_requests_running": GAUGE,
        "vllm:kv_cache_usage_perc": GAUGE,
        "vllm:gpu_cache_usage_perc": GAUGE,
        "vllm:cache_config_info": f"{GAUGE} block_size num_gpu_blocks",
    },
)
WVA: Final = rows(
    # llm-d/llm-d-autoscaling, internal/constants/metrics.go
    "llm-d workload variant autoscaler",
    {
        "vllm:num_requests_running": GAUGE,
        "vllm:num_requests_waiting": GAUGE,
        "vllm:kv_cache_usage_perc": GAUGE,
        "vllm:request_success_total": COUNTER,
        "vllm:request_prompt_tokens_sum": HISTOGRAM,
        "vllm:request_prompt_tokens_count": HISTOGRAM,
        "vllm:request_generation_tokens_sum": HISTOGRAM,
        "vllm:request_generation_tokens_count": HISTOGRAM,
        "vllm:time_to_first_token_seconds_sum": HISTOGRAM,
        "vllm:time_to_first_token_seconds_count": HISTOGRAM,
        "vllm:time_per_output_token_seconds_sum": HISTOGRAM,
        "vllm:time_per_output_token_seconds_count": HISTOGRAM,
        "vllm:cache_config_info": f"{GAUGE} num_gpu_blocks block_size cache_dtype",
        "vllm:prefix_cache_hits_total": COUNTER,
        "vllm:prefix_cache_queries_total": COUNTER,
    },
)
AIBRIX: Final = rows(
    # vllm-project/aibrix, pkg/metrics/metrics.go
    "AIBrix",
    {
        "vllm:num_requests_running": GAUGE,
        "vllm:num_requests_waiting": GAUGE,
        "vllm:num_preemptions_total": COUNTER,
        "vllm:prompt_tokens_total": COUNTER,
        "vllm:generation_tokens_total": COUNTER,
        "vllm:gpu_cache_usage_perc": GAUGE,
        "vllm:kv_cache_usage_perc": GAUGE,
        "vllm:prefix_cache_queries_total": COUNTER,
        "vllm:prefix_cache_hits_total": COUNTER,
        "vllm:request_success_total": COUNTER,
        **parts(
            "e2e_request_latency_seconds",
            "request_queue_time_seconds",
            "request_inference_time_seconds",
            "request_prefill_time_seconds",
            "request_decode_time_seconds",
            "request_time_per_output_token_seconds",
            "time_to_first_token_seconds",
            "time_per_output_token_seconds",
            "inter_token_latency_seconds",
            "request_prompt_tokens",
            "request_generation_tokens",
            "request_max_num_generation_tokens",
            "iteration_tokens_total",
        ),
    },
)
DASHBOARDS: Final = rows(
    # vllm-project/vllm, examples/observability/prometheus_grafana/grafana.json
    "vLLM's Grafana dashboard",
    {
        "vllm:num_requests_running": GAUGE,
        "vllm:num_requests_waiting": GAUGE,
        "vllm:kv_cache_usage_perc": GAUGE,
        "vllm:prompt_tokens_total": COUNTER,
        "vllm:generation_tokens_total": COUNTER,
        "vllm:request_success_total": f"{COUNTER} finished_reason",
        "vllm:request_queue_time_seconds_sum": HISTOGRAM,
        "vllm:request_prefill_time_seconds_sum": HISTOGRAM,
        "vllm:request_decode_time_seconds_sum": HISTOGRAM,
        "vllm:request_max_num_generation_tokens_sum": HISTOGRAM,
        **parts(
            "e2e_request_latency_seconds",
            "inter_token_latency_seconds",
            "time_to_first_token_seconds",
            "request_prompt_tokens",
            "request_generation_tokens",
        ),
    },
)
OLD_DASHBOARDS: Final = rows(
    # vllm-project/vllm before 0.11: names that V1 had first and then dropped
    "dashboards made for older vLLM releases",
    {
        "vllm:gpu_cache_usage_perc": GAUGE,
        "vllm:gpu_prefix_cache_queries_total": COUNTER,
        "vllm:gpu_prefix_cache_hits_total": COUNTER,
        **parts("time_per_output_token_seconds", "request_params_max_tokens"),
    },
)
ROWS: Final = (*KEDA, *GATEWAY_API, *WVA, *AIBRIX, *DASHBOARDS, *OLD_DASHBOARDS)


def missing(exposition: str, row: Row) -> str | None:
    """Return what the consumer would not find, or None."""
    families = text_string_to_metric_families(exposition)
    found = [(f.type, one) for f in families for one in f.samples if one.name == row.sample]
    if not found:
        return "no such sample"
    kinds = {kind for kind, _ in found}
    if kinds != {row.kind}:
        return f"it is a {kinds}, not a {row.kind}"
    unlabelled = [one for _, one in found if not row.labels <= one.labels.keys()]
    return f"labels {row.labels} are not all on {unlabelled[0]}" if unlabelled else None


@pytest.mark.parametrize("consumer", sorted({row.consumer for row in ROWS}))
async def test_every_sample_that_a_consumer_reads_is_there(served: Served, consumer: str) -> None:
    await served.complete(max_tokens=5)
    exposition = await served.metrics()
    asked = [row for row in ROWS if row.consumer == consumer]
    assert asked
    assert {row.sample: gap for row in asked if (gap := missing(exposition, row))} == {}


async def test_the_labels_that_are_read_as_values_can_be(served: Served) -> None:
    families = text_string_to_metric_families(await served.metrics())
    (info,) = next(f for f in families if f.name == "vllm:cache_config_info").samples
    assert info.value == 1
    assert int(info.labels["block_size"]) * int(info.labels["num_gpu_blocks"]) == 16 * 64
    assert info.labels["enable_prefix_caching"] in ("True", "False")
    assert info.labels["cache_dtype"]


@pytest.mark.parametrize(
    ("row", "gap"),
    [
        (Row("x", "vllm:never", GAUGE), "no such sample"),
        (Row("x", "vllm:num_requests_running", COUNTER), "it is a {'gauge'}, not a counter"),
        (Row("x", "vllm:num_requests_running", GAUGE, frozenset({"pod"})), "labels"),
    ],
    ids=["a name", "a type", "a label"],
)
async def test_a_gap_would_be_seen(served: Served, row: Row, gap: str) -> None:
    assert str(missing(await served.metrics(), row)).startswith(gap)
