"""Latency profiles for tests: replicas that are only arithmetic."""

from typing import Any

from llm_engine.contract.latency_profile import LatencyProfile


def a_profile(**fields: Any) -> LatencyProfile:
    """Return a quick model with small defaults."""
    defaults = {
        "model": "simulated",
        "step_s": 0.001,
        "blocks": 256,
        "max_context_tokens": 1024,
        "step_tokens": 128,
        "step_requests": 16,
        "answer_tokens": 40,
    }
    return LatencyProfile.model_validate(defaults | fields)
