import pytest

from llm_engine.contract.shape import ModelShape
from llm_engine.contract.step_work import StepWork
from tests.server.fake_engine import SHAPE


def a_shape(**fields: object) -> ModelShape:
    sizes = {"layers": 2, "hidden_size": 64, "intermediate_size": 128, "query_heads": 4}
    heads = {"kv_heads": 2, "head_dim": 16}
    return ModelShape.model_validate(SHAPE.model_dump() | sizes | heads | fields)


def test_a_decode_step_reads_the_weights_once_and_every_context() -> None:
    shape = a_shape()
    work = StepWork.of(shape, weight_bytes=1000, cache_dtype="bfloat16")
    assert work.model_bytes(tokens=8, context_tokens=100) == 1000 + 100 * 2 * 2 * 2 * 16 * 2


def test_arithmetic_is_two_per_weight_and_four_per_element_of_attention() -> None:
    shape = a_shape()
    work = StepWork.of(shape, weight_bytes=1000, cache_dtype="float32")
    expected = 2 * shape.parameters * 3 + 4 * 2 * 4 * 16 * 6
    assert work.flop(tokens=3, attended_tokens=6) == expected


def test_one_token_reads_the_experts_it_goes_through_and_many_read_all() -> None:
    shape = a_shape(experts=8, experts_per_token=2, expert_size=128)
    work = StepWork.of(shape, weight_bytes=shape.parameters, cache_dtype="float32")
    assert work.model_bytes(1, 0) == pytest.approx(shape.active_parameters)
    assert work.model_bytes(200, 0) == pytest.approx(shape.parameters)
