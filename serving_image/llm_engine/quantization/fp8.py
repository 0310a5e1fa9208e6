"""A linear whose weight is kept as fp8 (e4m3: 4 bits of exponent, 3 of mantissa)."""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.quantization.blockwise import multiply_decoded, rows_at_once
from llm_engine.quantization.fp8_cpu import Fp8Decoder, scale_per_input
from llm_engine.quantization.plain import bias_bytes

FP8: Final = torch.float8_e4m3fn
FP8_LARGEST: Final = 448.0


@dataclass(frozen=True)
class Fp8Weight:
    """w = values * scale.

    values  e4m3 [out_features, in_features]
    scale   fp32 [out_features, 1], or one per 128 inputs: [out_features, ceil(in_features / 128)]
    """

    values: Tensor
    scale: Tensor

    def decoded(self) -> Tensor:
        """Return the weight in fp32."""
        return decode_fp8(self.values, self.scale)


def quantize_fp8(weight: Tensor) -> Fp8Weight:
    """Round a weight of [out_features, in_features]; the largest of a row becomes 448."""
    exact = weight.float()
    largest = exact.abs().amax(dim=1, keepdim=True)
    scale = torch.where(largest > 0, largest / FP8_LARGEST, torch.ones_like(largest))
    return Fp8Weight((exact / scale).clamp_(-FP8_LARGEST, FP8_LARGEST).to(FP8), scale)


def decode_fp8(values: Tensor, scale: Tensor) -> Tensor:
    """Return `values` times `scale` in fp32, each scale for the inputs that share it."""
    return values.float() * scale_per_input(scale, values.shape[1])


class Fp8Linear:
    """y = x wT + bias, the weight decoded to the dtype of `x` as it is used."""

    def __init__(self, weight: Fp8Weight, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight, its scales and the bias take in memory."""
        return self._weight.values.nbytes + self._weight.scale.nbytes + bias_bytes(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        values, scale = self._weight.values, self._weight.scale
        if x.device.type == "cpu":
            rows = rows_at_once(values.shape)
            product = multiply_decoded(x, values.shape, Fp8Decoder(values, scale, rows, x.dtype))
        else:
            product = F.linear(x, decode_fp8(values, scale).to(x.dtype))
        return product if self._bias is None else product + self._bias
