"""Int8 weights: near the exact result, in the bytes of the contract, at any number of rows."""

import pytest
import torch

from llm_engine.contract.quantization import Quantization, linear_bytes
from llm_engine.quantization.linear import (
    Int8Linear,
    PlainLinear,
    make_linear,
)

OUT, INTO = 96, 64


@pytest.fixture
def weight() -> torch.Tensor:
    torch.manual_seed(3)
    # Channels of very different size: a scale per tensor would lose the small ones.
    return torch.randn(OUT, INTO) * torch.logspace(-3, 2, OUT)[:, None]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 16, 40])
def test_int8_is_near_the_exact_product_at_any_number_of_rows(
    weight: torch.Tensor, rows: int
) -> None:
    x = torch.randn(240, INTO)
    exact = x @ weight.T
    linear = Int8Linear(weight)
    found = torch.cat([linear(part) for part in torch.split(x, rows)])
    error = (found - exact).norm(dim=0) / exact.norm(dim=0)
    assert error.max() < 0.015


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 33])
def test_a_plain_linear_is_exact_at_any_number_of_rows(weight: torch.Tensor, rows: int) -> None:
    large = weight[-20:]
    x = torch.randn(INTO, rows).t()  # as it comes from a transposed product: not contiguous
    for given in (x, x.contiguous()):
        torch.testing.assert_close(PlainLinear(large)(given), x @ large.T, rtol=1e-5, atol=1e-3)


def test_a_channel_of_zeros_stays_zero(weight: torch.Tensor) -> None:
    weight[5] = 0.0
    out = Int8Linear(weight)(torch.randn(3, INTO))
    assert (out[:, 5] == 0).all()
    assert out.isfinite().all()


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_contract(
    weight: torch.Tensor, quantization: Quantization, dtype: torch.dtype
) -> None:
    linear = make_linear(weight.to(dtype), quantization)
    assert linear.weight_bytes == linear_bytes(quantization, OUT, INTO, dtype.itemsize)


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("rows", [1, 20])
def test_the_result_has_the_dtype_of_the_input(
    weight: torch.Tensor, quantization: Quantization, rows: int
) -> None:
    linear = make_linear(weight.bfloat16(), quantization)
    assert linear(torch.randn(rows, INTO).bfloat16()).dtype is torch.bfloat16
