"""One interface for a linear layer, however its weight is kept in memory."""

from typing import Protocol

from torch import Tensor

from llm_engine.contract.quantization import Quantization, has_whole_groups
from llm_engine.quantization.fp8 import Fp8Linear, Fp8Weight, quantize_fp8
from llm_engine.quantization.int4 import Int4Linear, Int4Weight
from llm_engine.quantization.int4_packed import PackedInt4Linear, packs_int4
from llm_engine.quantization.int4_rounding import quantize_int4
from llm_engine.quantization.int8 import Int8Linear, Int8Weight, quantize_int8
from llm_engine.quantization.plain import PlainLinear
from llm_engine.quantization.tiled import TiledLinear
from llm_engine.quantization.weight import Weight


class Linear(Protocol):
    """y = x wT + bias, the bias where there is one."""

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight takes in memory, scales included."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        ...


def make_linear(
    weight: Weight,
    quantization: Quantization,
    bias: Tensor | None = None,
    *,
    is_invariant: bool = False,
) -> Linear:
    """Keep a weight of [out_features, in_features]; quantize it if it is not quantized yet.

    is_invariant  each row's result is to have the same bits whatever rows come with it
    """
    linear = _make_linear(weight, quantization, bias)
    return TiledLinear(linear) if is_invariant else linear


def _make_linear(weight: Weight, quantization: Quantization, bias: Tensor | None) -> Linear:
    weight = quantized(weight, quantization)
    if isinstance(weight, Int8Weight):
        return Int8Linear(weight, bias)
    if isinstance(weight, Int4Weight):
        return PackedInt4Linear(weight, bias) if packs_int4(weight) else Int4Linear(weight, bias)
    if isinstance(weight, Fp8Weight):
        return Fp8Linear(weight, bias)
    return PlainLinear(weight, bias)


def quantized(weight: Weight, quantization: Quantization) -> Weight:
    """Round a weight to the layout of `quantization`; one that is quantized stays as it is."""
    if not isinstance(weight, Tensor):
        return weight
    if quantization is Quantization.INT8:
        return quantize_int8(weight)
    if quantization is Quantization.FP8:
        return quantize_fp8(weight)
    if quantization is Quantization.INT4 and has_whole_groups(weight.shape[1]):
        return quantize_int4(weight)
    return weight
