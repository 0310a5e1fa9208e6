"""How each quantization makes its weight of a plain one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import torch
from torch import Tensor

from llm_engine.contract.quantization import Quantization
from llm_engine.quantization.fp8 import Fp8Weight, quantize_fp8
from llm_engine.quantization.int4_rounding import quantize_int4
from llm_engine.quantization.int8 import quantize_int8
from llm_engine.quantization.weight import Weight


def _as_it_is(weight: Tensor) -> Weight:
    return weight


def _fp8_in_blocks(weight: Tensor) -> Weight:
    scale = torch.rand(len(weight), -(-weight.shape[1] // 128), device=weight.device) + 0.5
    return Fp8Weight(weight.to(torch.float8_e4m3fn), scale)


QUANTIZERS: Final[Mapping[Quantization, Callable[[Tensor], Weight]]] = {
    Quantization.NONE: _as_it_is,
    Quantization.INT8: quantize_int8,
    Quantization.INT4: quantize_int4,
    Quantization.FP8: quantize_fp8,
}
OF_CHECKPOINTS: Final[Mapping[str, Callable[[Tensor], Weight]]] = {
    "fp8, a scale for 128 inputs": _fp8_in_blocks,
    "int4 in groups of 128": partial(quantize_int4, group_size=128),
}
"""Layouts that only checkpoints have."""
