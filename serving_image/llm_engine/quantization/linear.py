"""One interface for a linear layer, however its weight is kept in memory."""

from functools import cache
from typing import Final, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.contract.quantization import Quantization

INT8_LARGEST: Final = 127
INT8_PACKED_ROWS: Final = 8
"""Up to so many rows the CPU's int8 kernel beats dequantizing first (measured on AVX2: 3x as fast
at 1 row, equal at 8 to 16, 2x as slow at 256)."""
TRANSPOSED_ROWS: Final = range(2, 5)
"""For so few rows MKL is 1.6x as fast computing (w xT)T, since it then packs x and not w."""


class Linear(Protocol):
    """y = x wT without a bias."""

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight takes in memory, scales included."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        ...


class PlainLinear:
    """A weight in the compute dtype."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._transposes = weight.device.type == "cpu"

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight takes in memory."""
        return self._weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features]."""
        if self._transposes and len(x) in TRANSPOSED_ROWS:
            return torch.mm(self._weight, x.contiguous().t()).t().contiguous()
        return F.linear(x, self._weight)


class Int8Linear:
    """A weight as int8 with one fp32 scale per output channel; symmetric, no zero point."""

    def __init__(self, weight: Tensor) -> None:
        exact = weight.float()
        # A row of zeros gets the scale 1: nothing to represent, and no division by zero.
        largest = exact.abs().amax(dim=1)
        self._scale = torch.where(largest > 0, largest / INT8_LARGEST, torch.ones_like(largest))
        quantized = torch.round(exact / self._scale[:, None])
        self._weight = quantized.clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)
        self._packs = weight.device.type == "cpu"
        self._ones = _bf16_ones(len(weight), weight.device)

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight and its scales take in memory."""
        return self._weight.nbytes + self._scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        rounded = x.bfloat16()
        if self._packs and len(x) <= INT8_PACKED_ROWS:
            product = torch._weight_int8pack_mm(rounded, self._weight, self._ones)
        else:
            # Rounded as that kernel rounds, so that a text does not depend on who else is served.
            product = F.linear(rounded.to(x.dtype), self._weight.to(x.dtype)).bfloat16()
        return (product * self._scale).to(x.dtype)


def make_linear(weight: Tensor, quantization: Quantization) -> Linear:
    """Keep a weight of [out_features, in_features] as `quantization` says."""
    if quantization is Quantization.INT8:
        return Int8Linear(weight)
    return PlainLinear(weight)


@cache
def _bf16_ones(count: int, device: torch.device) -> Tensor:
    """Return the scales for a kernel that wants them in bf16, too coarse for ours.

    It gets ones, and ours come after. It reads them through a bare pointer: no stride of 0 here.
    """
    return torch.ones(count, dtype=torch.bfloat16, device=device)
