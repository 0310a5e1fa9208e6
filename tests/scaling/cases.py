"""The yardsticks: loads that the scaling law has to follow. Knees were measured in the plant."""

import math

from llm_operator.scaling import ScalingRule
from tests.scaling.closed_loop import Case
from tests.scaling.plant import Hardware

SMALL_CPU = Hardware(
    fixed_s=0.06, per_request_s=0.02, power=0.9, per_prompt_s=0.004, chunk_tokens=64,
    max_concurrency=32, start_s=(15, 30),
)  # fmt: skip
SMALL_CPU_KNEE_PER_S = 0.47

LARGE_GPU = Hardware(
    fixed_s=0.018, per_request_s=0.00055, power=0.97, per_prompt_s=0.00011, chunk_tokens=2048,
    max_concurrency=256, start_s=(100, 130),
)  # fmt: skip
LARGE_GPU_KNEE_PER_S = 0.92


def small(**changes: object) -> ScalingRule:
    """The demo: half a core a replica, pods in 15-30 s, 30 s of stabilization."""
    fields: dict[str, object] = {
        "min_replicas": 1, "max_replicas": 8, "time_to_first_token_s": 2.0,
        "time_per_output_token_s": 0.2, "stabilization_s": 30.0, "cold_start_s": 25.0,
    } | changes  # fmt: skip
    return ScalingRule(**fields)  # type: ignore[arg-type]


def _small_case(name: str, rate: object, lasts_s: int, **changes: object) -> Case:
    fields: dict[str, object] = {
        "name": name, "hardware": SMALL_CPU, "rule": small(), "rate_per_s": rate,
        "lasts_s": lasts_s, "prompt_tokens": (20, 60), "output_tokens": (16, 64),
        "knee_per_s": SMALL_CPU_KNEE_PER_S,
    } | changes  # fmt: skip
    return Case(**fields)  # type: ignore[arg-type]


def _stages(second: float) -> float:
    """Return 2-4-6-8-10-4-1 in the stages of the published benchmark, scaled to our knee."""
    at_s = 0.0
    for per_s, lasts_s in ((2, 330), (4, 360), (6, 360), (8, 360), (10, 360), (4, 360), (1, 300)):
        at_s += lasts_s
        if second < at_s:
            return per_s * LARGE_GPU_KNEE_PER_S / 1.45
    return 0.0


STEADY = _small_case("steady, 80 % of two replicas", lambda _: 0.75, 1800, first_replicas=2)
STEP = _small_case("step x4 at 5 min", lambda t: 0.4 if t < 300 else 1.6, 1200)
BURST = _small_case("demo burst: 3 min of 1.5/s", lambda t: 1.5 if 60 <= t < 240 else 0.02, 600)
WAVE = _small_case(
    "day in 40 min, 0.2-2.2/s",
    lambda t: 1.2 - math.cos(2 * math.pi * t / 2400),
    2400,
)
OSCILLATION = _small_case(
    "square wave of 60 s, at a threshold",
    lambda t: 0.7 if t % 60 < 30 else 0.3,
    1800,
    rule=small(stabilization_s=300.0),
)
FLASH = _small_case(
    "flash crowd from zero, 2.5/s",
    lambda t: 2.5 if 120 <= t < 420 else 0.0,
    900,
    rule=small(min_replicas=0, idle_after_s=60.0),
    first_replicas=0,
)
STAGES = Case(
    "stages on a large GPU (2-10-1)", LARGE_GPU,
    ScalingRule(
        min_replicas=3, max_replicas=10, time_to_first_token_s=3.0, time_per_output_token_s=0.1,
        stabilization_s=120.0, cold_start_s=115.0,
    ),
    _stages, 2430, (3000, 5000), (700, 1300), LARGE_GPU_KNEE_PER_S, first_replicas=3,
)  # fmt: skip

ALL = (STEADY, STEP, BURST, WAVE, OSCILLATION, FLASH, STAGES)
