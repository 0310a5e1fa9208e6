"""One interface for a linear layer, however its weight is kept in memory."""

from typing import Protocol

from torch import Tensor

from llm_engine.contract.quantization import Quantization, has_whole_groups
from llm_engine.quantization.fp8 import Fp8Linear, quantize_fp8
from llm_engine.quantization.int4 import Int4Linear, quantize_int4
from llm_engine.quantization.int8 import Int8Linear, quantize_int8
from llm_engine.quantization.plain import PlainLinear


class Linear(Protocol):
    """y = x wT + bias, the bias where there is one."""

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight takes in memory, scales included."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        ...


def make_linear(weight: Tensor, quantization: Quantization, bias: Tensor | None = None) -> Linear:
    """Keep a weight of [out_features, in_features] as `quantization` says."""
    if quantization is Quantization.INT8:
        return Int8Linear(quantize_int8(weight), bias)
    if quantization is Quantization.FP8:
        return Fp8Linear(quantize_fp8(weight), bias)
    if quantization is Quantization.INT4 and has_whole_groups(weight.shape[1]):
        return Int4Linear(quantize_int4(weight), bias)
    return PlainLinear(weight, bias)
