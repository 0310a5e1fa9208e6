"""How each quantization makes its weight of a plain one."""

from collections.abc import Callable, Mapping
from typing import Final

from torch import Tensor

from llm_engine.contract.quantization import Quantization
from llm_engine.quantization.fp8 import quantize_fp8
from llm_engine.quantization.int4_rounding import quantize_int4
from llm_engine.quantization.int8 import quantize_int8
from llm_engine.quantization.weight import Weight


def _as_it_is(weight: Tensor) -> Weight:
    return weight


QUANTIZERS: Final[Mapping[Quantization, Callable[[Tensor], Weight]]] = {
    Quantization.NONE: _as_it_is,
    Quantization.INT8: quantize_int8,
    Quantization.INT4: quantize_int4,
    Quantization.FP8: quantize_fp8,
}
