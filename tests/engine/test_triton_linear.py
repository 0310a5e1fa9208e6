"""Quantized products on a GPU against the weight decoded; without one, in Triton's interpreter."""

import pytest
import torch

from llm_engine.quantization.fp8 import Fp8Weight, quantize_fp8
from llm_engine.quantization.int4 import Int4Weight
from llm_engine.quantization.int4_rounding import quantize_int4
from llm_engine.quantization.int8 import quantize_int8
from llm_engine.quantization.triton_linear import FUSED_ROWS, TritonLinear, can_fuse
from llm_engine.quantization.weight import QuantizedWeight

OUTS, INPUTS = 100, 1280
LAYOUTS = ["int8", "fp8", "fp8 in blocks", "int4 in groups of 32", "int4 in groups of 128"]
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def a_weight(layout: str, device: str, inputs: int = INPUTS) -> QuantizedWeight:
    torch.manual_seed(4)
    exact = torch.randn(OUTS, inputs, device=device) * 0.1
    if layout == "int8":
        return quantize_int8(exact)
    if layout == "fp8":
        return quantize_fp8(exact)
    if layout == "fp8 in blocks":
        scale = torch.rand(OUTS, -(-inputs // 128), device=device) + 0.5
        return Fp8Weight(exact.to(torch.float8_e4m3fn), scale)
    return quantize_int4(exact, int(layout.rpartition(" ")[2]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [1, 20, FUSED_ROWS + 1], ids=["one", "a few", "many"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_product_is_that_of_the_decoded_weight(layout: str, rows: int, device: str) -> None:
    weight = a_weight(layout, device)
    x = torch.randn(rows, INPUTS, device=device)
    bias = torch.randn(OUTS, device=device)
    wanted = x @ weight.decoded().T + bias
    torch.testing.assert_close(TritonLinear(weight, bias)(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["int8", "fp8 in blocks"])
def test_inputs_need_not_fill_the_last_tile(layout: str) -> None:
    weight = a_weight(layout, "cpu", inputs=200)
    x = torch.randn(3, 200)
    torch.testing.assert_close(
        TritonLinear(weight)(x), x @ weight.decoded().T, rtol=1e-4, atol=1e-4
    )


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 20, FUSED_ROWS + 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bf16_is_as_exact_as_its_rounding(layout: str, rows: int) -> None:
    weight = a_weight(layout, "cuda")
    x = torch.randn(rows, INPUTS, device="cuda", dtype=torch.bfloat16)
    wanted = x.float() @ weight.decoded().T
    error = (TritonLinear(weight)(x).float() - wanted).norm() / wanted.norm()
    assert error < 0.01


def test_groups_that_the_kernels_do_not_know_are_left_to_others() -> None:
    whole = Int4Weight(torch.zeros(4, 48, dtype=torch.uint8), torch.ones(4, 1), torch.ones(4, 1))
    assert not can_fuse(whole)
    assert can_fuse(a_weight("int4 in groups of 32", "cpu"))
