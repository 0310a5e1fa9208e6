"""One interface for a linear layer, however its weight is kept in memory."""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Final, Protocol

import torch
from torch import Tensor

from llm_engine.contract.quantization import Quantization, has_whole_groups
from llm_engine.quantization.fp8 import Fp8Linear, Fp8Weight, quantize_fp8
from llm_engine.quantization.int4 import Int4Linear, Int4Weight
from llm_engine.quantization.int4_packed import PackedInt4Linear, packs_int4
from llm_engine.quantization.int4_rounding import quantize_int4
from llm_engine.quantization.int8 import Int8Linear, Int8Weight, quantize_int8
from llm_engine.quantization.plain import PlainLinear
from llm_engine.quantization.slices import quantize_in_slices
from llm_engine.quantization.tiled import TiledLinear
from llm_engine.quantization.weight import QuantizedWeight, Weight


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
    if not isinstance(weight, Tensor) and weight.scale.device.type == "cuda" and _has_triton():
        from llm_engine.quantization.triton_linear import TritonLinear, can_fuse

        if can_fuse(weight):
            return TritonLinear(weight, bias)
    if isinstance(weight, Int8Weight):
        return Int8Linear(weight, bias)
    if isinstance(weight, Int4Weight):
        return PackedInt4Linear(weight, bias) if packs_int4(weight) else Int4Linear(weight, bias)
    if isinstance(weight, Fp8Weight):
        return Fp8Linear(weight, bias)
    return PlainLinear(weight, bias)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def quantized(
    weight: Weight,
    quantization: Quantization,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    importance: Tensor | None = None,
) -> Weight:
    """Round a weight to the layout of `quantization`; one that is quantized stays as it is.

    dtype, device  what is rounded is first made to be so; None: as it is
    importance     fp32 [in_features]: how much an error at each input counts, for int4
    """
    quantize = _QUANTIZERS.get(quantization)
    if quantize is None or not isinstance(weight, Tensor):
        return weight
    if quantization is Quantization.INT4 and not has_whole_groups(weight.shape[1]):
        return weight
    if quantization is Quantization.INT4 and importance is not None:
        quantize = partial(quantize_int4, importance=importance)
    return quantize_in_slices(weight, quantize, dtype or weight.dtype, device or weight.device)


_QUANTIZERS: Final[dict[Quantization, Callable[[Tensor], QuantizedWeight]]] = {
    Quantization.INT8: quantize_int8,
    Quantization.INT4: quantize_int4,
    Quantization.FP8: quantize_fp8,
}
