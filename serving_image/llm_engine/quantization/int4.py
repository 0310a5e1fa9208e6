"""A linear whose weight is kept as int4 in groups along the input, each with scale and offset."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from llm_engine.quantization.blockwise import multiply_decoded
from llm_engine.quantization.plain import bias_bytes

CODE_CENTRE: Final = 8
CODE_LARGEST: Final = 15


@dataclass(frozen=True)
class Int4Weight:
    """w = (codes - 8) * scale + offset, exact in fp32.

    codes          uint8 [out_features, in_features / 2]: the even input in the low half of a byte
    scale, offset  [out_features, groups]: bf16 where we quantized, fp32 where a checkpoint did
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor

    def decoded(self) -> Tensor:
        """Return the weight in fp32."""
        return decode_int4(self.codes, self.scale, self.offset)


def pack_codes(codes: Tensor) -> Tensor:
    """Put two codes of [out_features, in_features] into a byte."""
    return codes[:, ::2] | codes[:, 1::2] << 4


def unpack_codes(packed: Tensor) -> Tensor:
    """Undo `pack_codes`."""
    return torch.stack((packed & CODE_LARGEST, packed >> 4), dim=2).flatten(1)


def decode_int4(codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Return the weight that packed codes stand for, in fp32 [out_features, in_features]."""
    steps = unpack_codes(codes).float().sub_(CODE_CENTRE).view(*scale.shape, -1)
    return steps.mul_(scale[:, :, None]).add_(offset[:, :, None]).flatten(1)


class Int4Linear:
    """y = x wT + bias, the weight decoded to the dtype of `x` as it is used."""

    def __init__(self, weight: Int4Weight, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight, its scales, its offsets and the bias take in memory."""
        weight = self._weight
        return (
            weight.codes.nbytes
            + weight.scale.nbytes
            + weight.offset.nbytes
            + bias_bytes(self._bias)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        codes, scale, offset = self._weight.codes, self._weight.scale, self._weight.offset
        product = multiply_decoded(
            x,
            torch.Size((len(codes), 2 * codes.shape[1])),
            lambda begin, end: decode_int4(
                codes[begin:end], scale[begin:end], offset[begin:end]
            ).to(x.dtype),
        )
        return product if self._bias is None else product + self._bias
