import asyncio
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_engine.contract import metrics as names
from tests.server.served import Served, until

NOT_METRICS: Final = {"MODEL_LABEL"}

TYPES: Final = {
    "gauge": {
        names.REQUESTS_RUNNING,
        names.REQUESTS_WAITING,
        names.KV_CACHE_USAGE,
        names.CACHE_CONFIG_INFO,
        names.PENDING_PREFILL_TOKENS,
        names.TOKENS_IN_FLIGHT,
        names.MAX_CONCURRENCY,
        names.DRAINING,
        names.STARTUP_SECONDS,
        names.KV_CACHE_USAGE_ALIAS,
    },
    "counter": {
        names.PROMPT_TOKENS,
        names.GENERATION_TOKENS,
        names.REQUEST_SUCCESS,
        names.PREEMPTIONS,
        names.RECOMPUTED_TOKENS,
        names.PREFIX_CACHE_QUERIES_ALIAS,
        names.PREFIX_CACHE_HITS_ALIAS,
        names.MODEL_BYTES,
        names.MODEL_FLOP,
        names.PREFIX_CACHE_QUERIES,
        names.PREFIX_CACHE_HITS,
    },
    "histogram": {
        names.TIME_TO_FIRST_TOKEN,
        names.INTER_TOKEN_LATENCY,
        names.TIME_PER_OUTPUT_TOKEN,
        names.E2E_LATENCY,
        names.QUEUE_TIME,
        names.PREFILL_TIME,
        names.DECODE_TIME,
        names.STEP_SECONDS,
        names.REQUEST_PROMPT_TOKENS,
        names.REQUEST_GENERATION_TOKENS,
        names.ITERATION_TOKENS,
        names.INTER_TOKEN_LATENCY_ALIAS,
        names.INFERENCE_TIME,
        names.REQUEST_LONGEST_TOKENS,
        names.REQUEST_MAX_TOKENS,
    },
}

NAMES_OF_THE_CONTRACT: Final = sorted(
    value
    for key, value in vars(names).items()
    if key.isupper() and isinstance(value, str) and key not in NOT_METRICS
)


def value(exposition: str, sample: str, **labels: str) -> float:
    for family in text_string_to_metric_families(exposition):
        for one in family.samples:
            if one.name == sample and labels.items() <= one.labels.items():
                return one.value
    raise AssertionError(f"no sample {sample} with {labels}")


@pytest.mark.parametrize("name", NAMES_OF_THE_CONTRACT)
async def test_every_name_is_there_from_the_start(served: Served, name: str) -> None:
    families = {f.name: f for f in text_string_to_metric_families(await served.metrics())}
    family = families[name]
    assert name in TYPES[family.type]
    assert family.samples
    assert all(one.labels[names.MODEL_LABEL] == "fake" for one in family.samples)


async def test_buckets_are_those_of_the_contract(served: Served) -> None:
    expected = {
        names.TIME_TO_FIRST_TOKEN: names.TIME_TO_FIRST_TOKEN_BUCKETS_S,
        names.INTER_TOKEN_LATENCY: names.TIME_PER_TOKEN_BUCKETS_S,
        names.TIME_PER_OUTPUT_TOKEN: names.TIME_PER_TOKEN_BUCKETS_S,
        names.E2E_LATENCY: names.REQUEST_SECONDS_BUCKETS_S,
        names.REQUEST_PROMPT_TOKENS: names.TOKENS_BUCKETS,
    }
    families = {f.name: f for f in text_string_to_metric_families(await served.metrics())}
    for name, bounds in expected.items():
        seen = [float(one.labels["le"]) for one in families[name].samples if "le" in one.labels]
        assert seen == [*map(float, bounds), float("inf")]


async def test_the_warm_up_is_not_counted(served: Served) -> None:
    exposition = await served.metrics()
    assert value(exposition, "vllm:generation_tokens_total") == 0
    assert value(exposition, "vllm:time_to_first_token_seconds_count") == 0


async def test_a_request_is_counted_everywhere_once(served: Served) -> None:
    await served.complete(max_tokens=5)
    # A step is told after its tokens, so the answer may be here before its last step is counted.
    now = served.service.metrics.exposition
    await until(lambda: value(now().decode(), "llm_engine_step_seconds_count") == 5)
    exposition = await served.metrics()
    assert value(exposition, "vllm:request_success_total", finished_reason="length") == 1
    for once in (
        "time_to_first_token_seconds",
        "request_time_per_output_token_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "request_prompt_tokens",
        "request_generation_tokens",
        "request_inference_time_seconds",
        "request_max_num_generation_tokens",
        "request_params_max_tokens",
    ):
        assert value(exposition, f"vllm:{once}_count") == 1, once
    assert value(exposition, "vllm:inter_token_latency_seconds_count") == 4
    assert value(exposition, "vllm:time_per_output_token_seconds_count") == 4
    assert value(exposition, "vllm:request_prompt_tokens_sum") == 2
    assert value(exposition, "vllm:request_generation_tokens_sum") == 5
    assert value(exposition, "vllm:prompt_tokens_total") == 2
    assert value(exposition, "vllm:generation_tokens_total") == 5


async def test_gauges_follow_the_engine(served: Served) -> None:
    served.engine.hold.clear()
    request = asyncio.create_task(served.complete(prompt="x" * 40))
    await until(lambda: served.service.streams.open_requests == 1)
    exposition = await served.metrics()
    assert value(exposition, names.REQUESTS_RUNNING) == 1
    assert value(exposition, names.KV_CACHE_USAGE) == pytest.approx(3 / 64)
    assert value(exposition, names.KV_CACHE_USAGE_ALIAS) == pytest.approx(3 / 64)
    served.engine.hold.set()
    await request
    served.lifecycle.draining = True
    exposition = await served.metrics()
    assert value(exposition, names.REQUESTS_RUNNING) == 0
    assert value(exposition, names.DRAINING) == 1


async def test_a_restart_can_be_seen(served: Served) -> None:
    assert value(await served.metrics(), "process_start_time_seconds") > 0
