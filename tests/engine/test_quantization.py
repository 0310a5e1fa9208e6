"""Quantized weights: near the exact result, in the bytes of the contract, at any number of rows."""

import pytest
import torch

from llm_engine.contract.quantization import Quantization, linear_bytes
from llm_engine.quantization.fp8 import FP8, Fp8Weight
from llm_engine.quantization.fp8_cpu import Fp8Decoder
from llm_engine.quantization.int4 import pack_codes, unpack_codes
from llm_engine.quantization.int4_packed import (
    BLOCK_ROWS,
    PACKED_ROWS,
    PackedInt4Linear,
    packs_int4,
)
from llm_engine.quantization.int4_rounding import quantize_int4
from llm_engine.quantization.linear import make_linear
from llm_engine.quantization.plain import PlainLinear

OUT, INTO = 192, 64
# Relative error of an output channel with normally distributed weights.
LARGEST_ERROR = {
    Quantization.NONE: 1e-5,
    Quantization.INT8: 0.015,
    Quantization.FP8: 0.04,
    Quantization.INT4: 0.13,
}


@pytest.fixture
def weight() -> torch.Tensor:
    torch.manual_seed(3)
    # Channels of very different size: a scale per tensor would lose the small ones.
    return torch.randn(OUT, INTO) * torch.logspace(-3, 2, OUT)[:, None]


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 16, 40])
def test_the_product_is_near_the_exact_one_at_any_number_of_rows(
    weight: torch.Tensor, quantization: Quantization, rows: int
) -> None:
    x = torch.randn(240, INTO)
    exact = x @ weight.T
    linear = make_linear(weight, quantization)
    found = torch.cat([linear(part) for part in torch.split(x, rows)])
    error = (found - exact).norm(dim=0) / exact.norm(dim=0)
    assert error.max() < LARGEST_ERROR[quantization]


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 33])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_plain_linear_is_exact_at_any_number_of_rows(
    weight: torch.Tensor, rows: int, has_bias: bool
) -> None:
    large = weight[-20:]
    bias = torch.randn(20) if has_bias else None
    x = torch.randn(INTO, rows).t()  # as it comes from a transposed product: not contiguous
    exact = x @ large.T + (0 if bias is None else bias)
    for given in (x, x.contiguous()):
        torch.testing.assert_close(PlainLinear(large, bias)(given), exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_a_bias_is_added(weight: torch.Tensor, quantization: Quantization, rows: int) -> None:
    x, bias = torch.randn(rows, INTO), torch.randn(OUT)
    without = make_linear(weight, quantization)(x)
    with_bias = make_linear(weight, quantization, bias)(x)
    torch.testing.assert_close(with_bias, without + bias)


@pytest.mark.parametrize("quantization", list(Quantization))
def test_a_channel_of_zeros_stays_zero(weight: torch.Tensor, quantization: Quantization) -> None:
    weight[5] = 0.0
    out = make_linear(weight, quantization)(torch.randn(3, INTO))
    assert (out[:, 5] == 0).all()
    assert out.isfinite().all()


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_features", [64, 72], ids=["whole groups", "a part of a group"])
def test_bytes_are_those_of_the_contract(
    quantization: Quantization, dtype: torch.dtype, in_features: int
) -> None:
    linear = make_linear(torch.randn(OUT, in_features, dtype=dtype), quantization)
    assert linear.weight_bytes == linear_bytes(quantization, OUT, in_features, dtype.itemsize)


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("rows", [1, 20])
def test_the_result_has_the_dtype_of_the_input(
    weight: torch.Tensor, quantization: Quantization, rows: int
) -> None:
    linear = make_linear(weight.bfloat16(), quantization)
    assert linear(torch.randn(rows, INTO).bfloat16()).dtype is torch.bfloat16


@pytest.mark.parametrize("groups", [1, 3], ids=["a scale for each row", "for each block"])
def test_fp8_is_decoded_on_a_cpu_as_torch_converts_it(groups: int) -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(5, 2)[:, :300]
    values = codes.view(FP8)
    values = torch.where(values.float().isfinite(), values.float(), 0.0).to(FP8)
    scale = torch.rand(5, groups) + 0.5
    decoder = Fp8Decoder(values, scale, rows=2, dtype=torch.float32)
    found = torch.cat([decoder(begin, min(begin + 2, 5)).clone() for begin in (0, 2, 4)])
    assert torch.equal(found, Fp8Weight(values, scale).decoded())


def test_int4_codes_come_back_from_their_bytes() -> None:
    codes = torch.randint(0, 16, (8, 64), dtype=torch.uint8)
    assert torch.equal(unpack_codes(pack_codes(codes)), codes)


def test_int4_is_nearer_than_with_the_whole_range_of_each_group(weight: torch.Tensor) -> None:
    groups = weight.view(OUT, -1, 32)
    least, greatest = groups.aminmax(dim=2, keepdim=True)
    scale = (greatest - least) / 15
    plain = ((groups - least) / scale).round() * scale + least
    plain_error = (plain - groups).square().sum(2).mean()
    kept = quantize_int4(weight).decoded().view(OUT, -1, 32)
    assert (kept - groups).square().sum(2).mean() < 0.93 * plain_error


def test_int4_spares_the_inputs_that_count_most(weight: torch.Tensor) -> None:
    importance = torch.ones(INTO)
    importance[5] = 1000.0

    def error(kept: torch.Tensor) -> torch.Tensor:
        off: torch.Tensor = (kept - weight)[:, 5] / torch.linalg.vector_norm(weight, dim=1)
        return off.square().mean()

    spared = quantize_int4(weight, importance=importance).decoded()
    assert error(spared) < 0.2 * error(quantize_int4(weight).decoded())


def test_int4_keeps_what_lies_on_16_steps_of_a_group() -> None:
    torch.manual_seed(4)
    steps = torch.randint(0, 16, (64, 4, 32)).float()
    steps[:, :, :2] = torch.tensor([0.0, 15.0])
    exact = (steps * 0.25 - 1.5).flatten(1)
    assert torch.equal(quantize_int4(exact).decoded(), exact)


@pytest.mark.parametrize("value", [0.0, 3.0, -0.125])
def test_int4_keeps_a_group_of_equal_values(value: float) -> None:
    exact = torch.full((2, 64), value)
    assert torch.equal(quantize_int4(exact).decoded(), exact)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in BLOCK_ROWS, reason="the CPU has no int4 kernel"
)
@pytest.mark.parametrize("group_size", [32, 64])
@pytest.mark.parametrize("rows", [1, 5, PACKED_ROWS, PACKED_ROWS + 1, 90])
def test_packed_int4_multiplies_by_exactly_what_is_kept(
    weight: torch.Tensor, group_size: int, rows: int
) -> None:
    kept = quantize_int4(weight, group_size)
    # One input at a time: nothing is added up, so nothing is rounded but the result.
    x = torch.eye(INTO)[torch.arange(rows) % INTO]
    found = PackedInt4Linear(kept)(x)
    assert torch.equal(found, kept.decoded().t()[torch.arange(rows) % INTO].bfloat16().float())


def test_int4_is_packed_where_the_kernel_takes_it(weight: torch.Tensor) -> None:
    has_kernel = torch.backends.cpu.get_cpu_capability() in BLOCK_ROWS
    assert packs_int4(quantize_int4(weight)) is has_kernel
    assert not packs_int4(quantize_int4(weight[:-1]))


@pytest.mark.parametrize("in_features", [8, 24, 40, 100])
def test_int8_takes_inputs_that_its_kernel_would_read_beyond(in_features: int) -> None:
    weight, x = torch.randn(OUT, in_features), torch.randn(2, in_features)
    found = make_linear(weight, Quantization.INT8)(x)
    torch.testing.assert_close(found, x @ weight.t(), atol=0.02 * in_features, rtol=0.02)
