"""A linear whose weight is kept as int8: one fp32 scale per output row, no zero point."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

from llm_engine.quantization.blockwise import multiply_decoded
from llm_engine.quantization.plain import bias_bytes

INT8_LARGEST: Final = 127
INT8_PACKED_ROWS: Final = 16
"""Up to so many rows the CPU's int8 kernel beats decoding first (measured with AVX-512 and bf16: 7x
as fast at 1 row, 1.5x at 16, half as fast at 64; with AVX2 equal at 8 to 16)."""

INT8_KERNEL_INPUTS: Final = 16
"""The kernel reads so many inputs at once, beyond a weight's end if it has to, and then crashes."""


@dataclass(frozen=True)
class Int8Weight:
    """w = values * scale.

    values  int8 [out_features, in_features]
    scale   fp32 [out_features]
    """

    values: Tensor
    scale: Tensor

    def decoded(self) -> Tensor:
        """Return the weight in fp32."""
        return self.values * self.scale[:, None]


def quantize_int8(weight: Tensor) -> Int8Weight:
    """Round a weight of [out_features, in_features]; the largest of a row becomes 127."""
    exact = weight.float()
    # A row of zeros gets the scale 1: nothing to represent, and no division by zero.
    largest = exact.abs().amax(dim=1)
    scale = torch.where(largest > 0, largest / INT8_LARGEST, torch.ones_like(largest))
    rounded = torch.round(exact / scale[:, None])
    return Int8Weight(rounded.clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8), scale)


class Int8Linear:
    """y = x wT + bias; `x` is rounded to bf16, and so is the product before it is scaled."""

    def __init__(self, weight: Int8Weight, bias: Tensor | None = None) -> None:
        self._weight = weight.values
        self._scale = weight.scale
        self._bias = bias
        is_whole = weight.values.shape[1] % INT8_KERNEL_INPUTS == 0
        self._packs = is_whole and weight.values.device.type == "cpu"
        self._ones = _bf16_ones(len(weight.values), weight.values.device)

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight, its scales and the bias take in memory."""
        return self._weight.nbytes + self._scale.nbytes + bias_bytes(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        rounded = x.bfloat16()
        if self._packs and len(x) <= INT8_PACKED_ROWS:
            product = torch._weight_int8pack_mm(rounded, self._weight, self._ones)
        else:
            # Rounded as that kernel rounds, so that a text does not depend on who else is served.
            inputs = rounded.to(x.dtype)
            product = multiply_decoded(
                inputs, self._weight.shape, lambda begin, end: self._weight[begin:end].to(x.dtype)
            ).bfloat16()
        # Converted first: torch multiplies two dtypes at once 20 times as slowly.
        scaled = product.float().mul_(self._scale)
        return (scaled if self._bias is None else scaled + self._bias).to(x.dtype)


@cache
def _bf16_ones(count: int, device: torch.device) -> Tensor:
    """Return the scales for a kernel that wants them in bf16, too coarse for ours.

    It gets ones, and ours come after. It reads them through a bare pointer: no stride of 0 here.
    """
    return torch.ones(count, dtype=torch.bfloat16, device=device)
