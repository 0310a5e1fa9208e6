"""One interface for a linear layer, however its weight is kept in memory."""

from typing import Final, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.contract.quantization import Quantization

INT8_LARGEST: Final = 127
INT8_PACKED_ROWS: Final = 8
"""Up to so many rows the CPU's int8 kernel beats dequantizing first (measured on AVX2: 3x as fast
at 1 row, equal at 8 to 16, 2x as slow at 256)."""
TRANSPOSED_ROWS: Final = range(2, 9)
"""For so few rows MKL is up to 2x as fast computing (w xT)T, since it then packs x and not w."""


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
            return torch.mm(self._weight, x.t()).t()
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
        # The kernel wants scales in bf16, too coarse for ours: it gets ones, and ours come after.
        self._ones = torch.ones(1, dtype=torch.bfloat16, device=weight.device).expand(len(weight))

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight and its scales take in memory."""
        return self._weight.nbytes + self._scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        if self._packs and len(x) <= INT8_PACKED_ROWS:
            product = torch._weight_int8pack_mm(x.bfloat16(), self._weight, self._ones)
        else:
            product = F.linear(x, self._weight.to(x.dtype))
        return (product * self._scale).to(x.dtype)


def make_linear(weight: Tensor, quantization: Quantization) -> Linear:
    """Keep a weight of [out_features, in_features] as `quantization` says."""
    if quantization is Quantization.INT8:
        return Int8Linear(weight)
    return PlainLinear(weight)
