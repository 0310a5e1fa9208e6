"""Weights rounded some rows at a time are those that are rounded at once."""

import pytest
import torch

from llm_engine.contract.quantization import Quantization
from llm_engine.quantization import int4_packed, slices
from llm_engine.quantization.linear import make_linear, quantized
from llm_engine.quantization.weight import decoded

QUANTIZED = [each for each in Quantization if each is not Quantization.NONE]


@pytest.mark.parametrize("quantization", QUANTIZED)
def test_slices_make_the_whole(quantization: Quantization, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    weight = torch.randn(100, 64)
    whole = quantized(weight, quantization)
    monkeypatch.setattr(slices, "SLICE_ELEMENTS", 64 * 7)
    assert torch.equal(decoded(quantized(weight, quantization)), decoded(whole))


@pytest.mark.parametrize("quantization", QUANTIZED)
def test_a_weight_is_rounded_from_the_dtype_asked_for(quantization: Quantization) -> None:
    torch.manual_seed(3)
    weight = torch.randn(32, 64)
    cpu = torch.device("cpu")
    rounded = quantized(weight, quantization, torch.bfloat16, cpu)
    assert torch.equal(decoded(rounded), decoded(quantized(weight.bfloat16(), quantization)))


def test_int4_is_packed_in_slices_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    weight, x = torch.randn(256, 64), torch.randn(3, 64)
    whole = make_linear(weight, Quantization.INT4)(x)
    monkeypatch.setattr(int4_packed, "SLICE_ELEMENTS", 1)
    assert torch.equal(make_linear(weight, Quantization.INT4)(x), whole)
