"""The memory plan: sums, refusals in numbers, and what more memory may never do."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.contract.inspection import FailureReason, Inspection, ModelRefused
from llm_engine.contract.layer_groups import block_bytes
from llm_engine.contract.memory_plan import (
    FRAMEWORK_BYTES,
    LARGEST_STEPS,
    LargestStep,
    MemoryPlan,
    MemoryRequest,
    plan_memory,
)
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_engine.engine.baseline import Baseline
from llm_engine.engine.planning import described, plan_for
from tests.engine.tiny_llama import an_engine

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
GIB = 1 << 30
SMOLLM2 = ModelShape(
    architecture="llama", layers=30, hidden_size=576, intermediate_size=1536, query_heads=9,
    kv_heads=3, head_dim=64, vocabulary=49152, context_tokens=8192, tied_embeddings=True,
)  # fmt: skip
BLOCK_BYTES = block_bytes(SMOLLM2, 16, 2)


def a_request(**changes: Any) -> MemoryRequest:
    request = MemoryRequest(
        quantization=Quantization.NONE,
        device="cpu",
        dtype_bytes=2,
        context_tokens=1024,
        free_bytes=GIB,
        step=LargestStep(tokens=64, requests=8),
    )
    return replace(request, **changes)


def planned(**changes: Any) -> MemoryPlan:
    return plan_memory(SMOLLM2, a_request(**changes))


def test_every_part_is_counted() -> None:
    plan = planned(framework_bytes=500 * MIB)
    assert plan.embedding_bytes == 49152 * 576 * 2
    assert plan.head_bytes == 0
    assert plan.weight_bytes == SMOLLM2.parameters * 2
    assert plan.norm_bytes == 61 * 576 * 2
    assert plan.rope_bytes == 2 * 1024 * 64 * 2
    assert plan.kv_cache_bytes == plan.blocks * BLOCK_BYTES
    assert plan.total_bytes == (
        500 * MIB + plan.weight_bytes + plan.rope_bytes + plan.kv_cache_bytes + plan.step_bytes
    )


def test_an_untied_head_is_a_matrix_of_its_own() -> None:
    untied = SMOLLM2.model_copy(update={"tied_embeddings": False})
    plan = plan_memory(untied, a_request())
    assert plan.head_bytes == plan.embedding_bytes


@pytest.mark.parametrize("quantization", Quantization)
def test_the_plan_counts_what_the_engine_then_holds(
    tiny_llama: Path, quantization: Quantization
) -> None:
    engine = an_engine(tiny_llama, blocks=40, quantization=quantization)
    runner: Any = engine._runner
    plan = plan_memory(
        engine.shape,
        a_request(
            quantization=quantization,
            dtype_bytes=4,
            context_tokens=128,
            block_tokens=8,
            kv_cache_bytes=runner.cache_bytes,
        ),
    )
    assert plan.weight_bytes == runner.weight_bytes
    assert plan.kv_cache_bytes == runner.cache_bytes
    assert plan.blocks == 40


def test_no_more_blocks_than_all_running_requests_can_fill() -> None:
    assert planned(free_bytes=100 * GIB).blocks == 8 * 1024 // 16


def test_a_wish_is_kept() -> None:
    assert planned(kv_cache_bytes=100 * BLOCK_BYTES + 7).blocks == 100


def test_collecting_keys_and_values_costs_a_layer_of_the_cache() -> None:
    torch_plan = planned(kv_cache_bytes=100 * BLOCK_BYTES)
    triton_plan = planned(kv_cache_bytes=100 * BLOCK_BYTES, gathers=False)
    assert torch_plan.attention_bytes > 100 * BLOCK_BYTES // 30
    assert triton_plan.attention_bytes == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"free_bytes": 200 * MIB},
            ["weights need 256 MiB as None", "200 MiB are free", "smaller quantization"],
            id="weights that do not fit",
        ),
        pytest.param(
            {"free_bytes": 300 * MIB, "context_tokens": 8192},
            ["8192 tokens needs 180 MiB", "300 MiB", "give the container more memory", "at most"],
            id="too little left for the longest context",
        ),
        pytest.param(
            {"kv_cache_bytes": 10 * BLOCK_BYTES},
            ["1024 tokens needs 22 MiB", "3 MiB are there", "--kv-cache-bytes", "at most 160"],
            id="too little asked for",
        ),
        pytest.param(
            {"kv_cache_bytes": 2 * GIB, "context_tokens": 8192},
            ["asks for 1440 MiB", "MiB are left", "ask for less"],
            id="more asked for than there is",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_numbers(changes: dict[str, int], words: list[str]) -> None:
    plan = planned(**changes)
    assert not plan.fits
    assert plan.problem is not None
    assert all(word in plan.problem for word in words), plan.problem


def test_an_engine_that_does_not_fit_is_refused_before_it_is_loaded(tiny_llama: Path) -> None:
    with pytest.raises(ModelRefused, match="one request of 128 tokens needs") as refusal:
        an_engine(tiny_llama, blocks=15)
    assert refusal.value.reason is FailureReason.OUT_OF_MEMORY


SHAPES = st.builds(
    ModelShape,
    architecture=st.just("llama"),
    layers=st.integers(1, 60),
    hidden_size=st.sampled_from([64, 576, 4096]),
    intermediate_size=st.sampled_from([96, 1536, 14336]),
    query_heads=st.sampled_from([8, 32]),
    kv_heads=st.sampled_from([1, 8]),
    head_dim=st.sampled_from([64, 128]),
    vocabulary=st.integers(32, 200_000),
    context_tokens=st.sampled_from([100, 8192, 131_072]),
    tied_embeddings=st.booleans(),
)
REQUESTS = st.builds(
    MemoryRequest,
    quantization=st.sampled_from(Quantization),
    device=st.just("cpu"),
    dtype_bytes=st.sampled_from([2, 4]),
    context_tokens=st.integers(2, 131_072),
    free_bytes=st.integers(0, 80 * GIB),
    step=st.builds(LargestStep, st.integers(1, 2048), st.integers(1, 256)),
    framework_bytes=st.integers(0, GIB),
    kv_cache_bytes=st.none() | st.integers(0, 80 * GIB),
    block_tokens=st.sampled_from([8, 16, 64]),
    gathers=st.booleans(),
)


@given(SHAPES, REQUESTS)
def test_a_plan_that_fits_stays_within_what_is_free(
    shape: ModelShape, request: MemoryRequest
) -> None:
    plan = plan_memory(shape, request)
    assert plan.fits == (plan.problem is None)
    if plan.fits:
        assert plan.request_blocks <= plan.blocks
        assert plan.total_bytes <= plan.free_bytes


@given(SHAPES, REQUESTS)
def test_the_longest_context_that_fits_is_the_longest(
    shape: ModelShape, request: MemoryRequest
) -> None:
    most = plan_memory(shape, request).most_context_tokens
    if most:
        assert plan_memory(shape, replace(request, context_tokens=most)).fits
    if most < shape.context_tokens:
        assert not plan_memory(shape, replace(request, context_tokens=most + 1)).fits


@given(SHAPES, REQUESTS)
def test_the_least_memory_is_just_enough(shape: ModelShape, request: MemoryRequest) -> None:
    request = replace(request, kv_cache_bytes=None)
    request = replace(request, context_tokens=min(request.context_tokens, shape.context_tokens))
    least = plan_memory(shape, request).least_bytes
    assert plan_memory(shape, replace(request, free_bytes=least)).fits
    assert not plan_memory(shape, replace(request, free_bytes=least - 1)).fits


@given(SHAPES, REQUESTS, st.integers(0, 80 * GIB))
def test_more_memory_never_fits_less(
    shape: ModelShape, request: MemoryRequest, more_bytes: int
) -> None:
    before = plan_memory(shape, request)
    after = plan_memory(shape, replace(request, free_bytes=request.free_bytes + more_bytes))
    assert after.fits or not before.fits
    assert after.most_context_tokens >= before.most_context_tokens


def test_a_plan_is_described_part_by_part() -> None:
    baseline = Baseline("cpu", 2, 2 * GIB, FRAMEWORK_BYTES["cpu"])
    plan = plan_for(SMOLLM2, baseline, Quantization.INT8, 2048, 100 * MIB)
    lines = list(described(plan))
    assert lines[0] == "plan          Int8 on cpu, computed in bf16"
    for part in ("framework", "embedding", "linears", "norms", "head", "rope table", "total"):
        assert any(part in line and "MiB" in line for line in lines), part
    assert lines[-1] == "  longest context that fits: 4,544 tokens"


def test_a_gpus_plan_counts_its_context_and_a_linear_that_it_decodes() -> None:
    baseline = Baseline("cuda", 2, 8 * GIB, FRAMEWORK_BYTES["cuda"])
    plans = {q: plan_for(SMOLLM2, baseline, q, 2048, 100 * MIB) for q in Quantization}
    lines = list(described(plans[Quantization.INT4]))
    assert any("framework" in line and "CUDA context" in line for line in lines)
    plain = plans[Quantization.NONE].activation_bytes
    assert plans[Quantization.INT4].activation_bytes == plain + 2 * 1536 * 576 * 2


def test_a_context_beyond_the_models_own_is_refused() -> None:
    baseline = Baseline("cpu", 2, 2 * GIB, 0)
    with pytest.raises(ValueError, match="8193; the model allows 2 to 8192"):
        plan_for(SMOLLM2, baseline, Quantization.NONE, 8193, None)


def test_inspect_writes_the_plan_and_its_sums(tiny_llama: Path) -> None:
    command = ["inspect", str(tiny_llama), "--plan", "--device", "cpu", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", "llm_engine.cli", *command],
        env={"PYTHONPATH": str(ROOT / "serving_image"), "PATH": ""},
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    plan = json.loads(result.stdout)["plan"]
    assert plan["total_bytes"] > plan["framework_bytes"] > 50 * MIB
    report = Inspection.model_validate_json(result.stdout)
    assert report.plan is not None
    assert report.plan.total_bytes == plan["total_bytes"]


@pytest.mark.timeout(300)
def test_the_plan_comes_near_what_is_measured(smollm2: Path, tmp_path: Path) -> None:
    """The figures within 3 % are in docs/engine.md; here for another machine's libraries."""
    figures = tmp_path / "figures.json"
    command = [str(ROOT / "serving_image/benchmarks/memory_plan.py"), str(smollm2)]
    command += ["--kv-cache-bytes", str(200 * MIB)]
    subprocess.run(
        [sys.executable, *command, "--device", "cpu", "--only", "Int8", "--output", str(figures)],
        env={"PYTHONPATH": str(ROOT / "serving_image"), "PATH": ""},
        timeout=280, check=True,
    )  # fmt: skip
    [int8] = json.loads(figures.read_text())
    assert int8["planned"]["weight_bytes"] == int8["weight_bytes"]
    assert int8["planned"]["kv_cache_bytes"] == int8["kv_cache_bytes"]
    assert 0.9 < int8["ratio"] < 1.1
    assert int8["loading_peak_bytes"] < int8["final_bytes"]


def test_the_largest_steps_are_those_of_both_devices() -> None:
    assert set(LARGEST_STEPS) == set(FRAMEWORK_BYTES) == {"cpu", "cuda"}
