"""Names of the engine's metrics; vLLM's names where one exists, since others read those.

Every sample carries the label `model_name`. Counters are named here without `_total`, as
prometheus-client wants them; on the wire they end in `_total`.
"""

from typing import Final

# Gauges
REQUESTS_RUNNING: Final = "vllm:num_requests_running"
REQUESTS_WAITING: Final = "vllm:num_requests_waiting"
KV_CACHE_USAGE: Final = "vllm:kv_cache_usage_perc"  # a ratio 0-1, whatever its name says
CACHE_CONFIG_INFO: Final = "vllm:cache_config_info"
PENDING_PREFILL_TOKENS: Final = "llm_engine_pending_prefill_tokens"
TOKENS_IN_FLIGHT: Final = "llm_engine_tokens_in_flight"
MAX_CONCURRENCY: Final = "llm_engine_max_concurrency"
DRAINING: Final = "llm_engine_draining"
STARTUP_SECONDS: Final = "llm_engine_startup_seconds"  # label phase

# Counters
PROMPT_TOKENS: Final = "vllm:prompt_tokens"
GENERATION_TOKENS: Final = "vllm:generation_tokens"
REQUEST_SUCCESS: Final = "vllm:request_success"  # label finished_reason
PREEMPTIONS: Final = "vllm:num_preemptions"
RECOMPUTED_TOKENS: Final = "llm_engine_recomputed_tokens"
PREFIX_CACHE_QUERIES: Final = "vllm:prefix_cache_queries"  # in tokens
PREFIX_CACHE_HITS: Final = "vllm:prefix_cache_hits"  # in tokens
MODEL_BYTES: Final = "llm_engine_model_bytes"  # its rate is the bandwidth achieved
MODEL_FLOP: Final = "llm_engine_model_flop"  # its rate is the arithmetic achieved

# Histograms, in seconds
TIME_TO_FIRST_TOKEN: Final = "vllm:time_to_first_token_seconds"
INTER_TOKEN_LATENCY: Final = "vllm:inter_token_latency_seconds"
TIME_PER_OUTPUT_TOKEN: Final = "vllm:request_time_per_output_token_seconds"
E2E_LATENCY: Final = "vllm:e2e_request_latency_seconds"
QUEUE_TIME: Final = "vllm:request_queue_time_seconds"
PREFILL_TIME: Final = "vllm:request_prefill_time_seconds"
DECODE_TIME: Final = "vllm:request_decode_time_seconds"
INFERENCE_TIME: Final = "vllm:request_inference_time_seconds"
STEP_SECONDS: Final = "llm_engine_step_seconds"

# Histograms, in tokens
REQUEST_PROMPT_TOKENS: Final = "vllm:request_prompt_tokens"
REQUEST_GENERATION_TOKENS: Final = "vllm:request_generation_tokens"
REQUEST_LONGEST_TOKENS: Final = "vllm:request_max_num_generation_tokens"
REQUEST_MAX_TOKENS: Final = "vllm:request_params_max_tokens"
ITERATION_TOKENS: Final = "vllm:iteration_tokens_total"

# Older names of the same, which consumers still read
KV_CACHE_USAGE_ALIAS: Final = "vllm:gpu_cache_usage_perc"
INTER_TOKEN_LATENCY_ALIAS: Final = "vllm:time_per_output_token_seconds"
PREFIX_CACHE_QUERIES_ALIAS: Final = "vllm:gpu_prefix_cache_queries"
PREFIX_CACHE_HITS_ALIAS: Final = "vllm:gpu_prefix_cache_hits"

MODEL_LABEL: Final = "model_name"

# vLLM's buckets, with finer ones below 10 ms, where a fast GPU lives.
TIME_PER_TOKEN_BUCKETS_S: Final = (
    0.001, 0.002, 0.004, 0.006, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
TIME_TO_FIRST_TOKEN_BUCKETS_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
REQUEST_SECONDS_BUCKETS_S: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
    240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
TOKENS_BUCKETS: Final = (
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000,
)  # fmt: skip
