"""A linear whose weight is kept as int4 in the order of torch's CPU kernel."""

from typing import Final

import torch
from torch import Tensor

from llm_engine.quantization.blockwise import CACHED_ELEMENTS
from llm_engine.quantization.int4 import CODE_CENTRE, CODE_LARGEST, Int4Weight, unpack_codes
from llm_engine.quantization.plain import bias_bytes
from llm_engine.quantization.slices import SLICE_ELEMENTS

BLOCK_ROWS: Final = {"AVX512": 64, "AVX2": 32}
"""Output rows that the kernel interleaves, by what torch says the CPU can do: byte i of a block's
32 (or 16) bytes for an input holds row i in its low half, row i + 32 (or 16) in its high half."""
GROUP_SIZES: Final = (32, 64, 128, 256)
PACKED_ROWS: Final = 96
"""Up to so many rows the kernel beats decoding first (measured on AVX-512)."""


def packs_int4(weight: Int4Weight) -> bool:
    """Whether the kernel takes such a weight on this machine."""
    block = BLOCK_ROWS.get(torch.backends.cpu.get_cpu_capability())
    fits = block is not None and len(weight.codes) % block == 0
    return weight.codes.device.type == "cpu" and fits and _group_size(weight) in GROUP_SIZES


class PackedInt4Linear:
    """y = x wT + bias; `x` is rounded to bf16, and so is the product."""

    def __init__(self, weight: Int4Weight, bias: Tensor | None = None) -> None:
        self._group_size = _group_size(weight)
        self._block = BLOCK_ROWS[torch.backends.cpu.get_cpu_capability()]
        self._packed = _packed(weight.codes, self._block)
        pairs = torch.stack((weight.scale, weight.offset), dim=2)
        self._parameters = pairs.transpose(0, 1).contiguous()  # [groups, out_features, 2]
        self._bias = bias

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight, its scales, its offsets and the bias take in memory."""
        return self._packed.nbytes + self._parameters.nbytes + bias_bytes(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        rounded = x.bfloat16()
        if len(x) <= PACKED_ROWS:
            product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rounded, self._packed, self._group_size, self._parameters.bfloat16()
            )
        else:
            product = self._multiply_decoded(rounded.to(x.dtype)).bfloat16()
        return (product if self._bias is None else product + self._bias).to(x.dtype)

    def _multiply_decoded(self, x: Tensor) -> Tensor:
        in_features = x.shape[1]
        # [blocks, in_features, half a block]
        packed = self._packed.view(-1, in_features, self._block // 2)
        # [2, blocks, groups, 1, rows of a block]
        parameters = self._parameters.view(len(self._parameters), 1, len(packed), self._block, 2)
        scale, offset = parameters.permute(4, 2, 0, 1, 3).to(x.dtype).contiguous()
        out = x.new_empty(len(x), len(packed) * self._block)
        step = max(1, CACHED_ELEMENTS // (in_features * self._block))
        for begin in range(0, len(packed), step):
            part = slice(begin, begin + step)
            codes = torch.cat((packed[part] & CODE_LARGEST, packed[part] >> 4), dim=2)
            # In whole bytes: four times as fast as to subtract in bf16.
            steps = codes.view(torch.int8).sub_(CODE_CENTRE).to(x.dtype)
            grouped = steps.view(len(codes), -1, self._group_size, self._block)
            weight = torch.addcmul(offset[part], grouped, scale[part]).view(codes.shape)
            for block, columns in enumerate(weight, begin):
                rows = slice(block * self._block, (block + 1) * self._block)
                torch.mm(x, columns, out=out[:, rows])
        return out


def _packed(codes: Tensor, block: int) -> Tensor:
    """Return the codes in the kernel's order, made from int32, so some blocks at a time."""
    rows = block * max(1, SLICE_ELEMENTS // (2 * codes.shape[1] * block))
    pieces = [
        torch.ops.aten._convert_weight_to_int4pack_for_cpu(
            unpack_codes(codes[first : first + rows]).int(), 1
        )
        for first in range(0, len(codes), rows)
    ]
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _group_size(weight: Int4Weight) -> int:
    return 2 * weight.codes.shape[1] // weight.scale.shape[1]
