"""A quantized linear on an NVIDIA GPU: fused for few rows, decoded first for many."""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
import triton
from torch import Tensor

from llm_engine.quantization.fp8 import Fp8Weight
from llm_engine.quantization.fp8_cpu import SCALED_INPUTS
from llm_engine.quantization.int4 import Int4Weight
from llm_engine.quantization.int8 import Int8Weight
from llm_engine.quantization.plain import bias_bytes
from llm_engine.quantization.triton_kernels import decode_kernel, multiply_kernel

FUSED_ROWS: Final = 128
"""Up to so many rows are multiplied by the weight as it is kept. More rows are bound by arithmetic:
decoding the weight to memory once, for the vendor's product of plain matrices, is quicker then."""
INPUTS: Final = 128
"""Inputs per turn of a program's loop."""
DECODED_INPUTS: Final = 1024
INT4_GROUPS: Final = frozenset({32, 64, 128})
PROGRAMS_PER_PROCESSOR: Final = 4
LEAST_SPLIT_INPUTS: Final = 512
INTERPRETED_PROCESSORS: Final = 4


@dataclass(frozen=True)
class Tile:
    """What one program of the product computes: rows times outs."""

    rows: int
    outs: int
    warps: int
    stages: int
    inputs: int = INPUTS


def tile_of(rows: int, is_int4: bool) -> Tile:
    """Return the tile for so many rows."""
    if rows <= 16:
        return Tile(16, 32, 4, 4)
    if rows <= 32:
        # Two int4 share a byte: twice the inputs, so that a thread copies 16 bytes here too.
        return Tile(32, 64, 4, 4, 2 * INPUTS if is_int4 else INPUTS)
    return Tile(64, 64, 4, 4) if rows <= 64 else Tile(128, 64, 8, 3)


def can_fuse(weight: Int8Weight | Int4Weight | Fp8Weight) -> bool:
    """Tell whether the kernels know this layout."""
    if isinstance(weight, Int4Weight):
        inputs, groups = 2 * weight.codes.shape[1], weight.scale.shape[1]
        return inputs % groups == 0 and inputs // groups in INT4_GROUPS
    return True


class TritonLinear:
    """y = x wT + bias, for every quantized layout."""

    def __init__(
        self, weight: Int8Weight | Int4Weight | Fp8Weight, bias: Tensor | None = None
    ) -> None:
        self._bias = bias
        self._is_int4 = isinstance(weight, Int4Weight)
        self._scale = weight.scale.contiguous()
        if isinstance(weight, Int4Weight):
            self._values, self._offset = weight.codes, weight.offset.contiguous()
            self._inputs = 2 * weight.codes.shape[1]
            self._group = self._inputs // weight.scale.shape[1]
        else:
            self._values, self._offset = weight.values, self._scale
            self._inputs = weight.values.shape[1]
            blocks = isinstance(weight, Fp8Weight) and weight.scale.shape[1] > 1
            self._group = SCALED_INPUTS if blocks else 0
        device = self._values.device
        self._processors = (
            torch.cuda.get_device_properties(device).multi_processor_count
            if device.type == "cuda"
            else INTERPRETED_PROCESSORS
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight, what belongs to it and the bias take in memory."""
        kept = self._values.nbytes + self._scale.nbytes + bias_bytes(self._bias)
        return kept + (self._offset.nbytes if self._is_int4 else 0)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features] in the dtype of `x`."""
        if len(x) > FUSED_ROWS:
            return F.linear(x, self._decoded(x.dtype), self._bias)
        product = self.multiply(x.contiguous(), tile_of(len(x), self._is_int4))
        return product if self._bias is None else product + self._bias

    def multiply(self, x: Tensor, tile: Tile) -> Tensor:
        """Return x wT, for few rows."""
        rows, outs = len(x), len(self._values)
        if self._is_int4:  # so that the even inputs lie side by side, as low halves of bytes do
            x = x.view(rows, -1, 2).permute(2, 0, 1).contiguous()
        tiles = triton.cdiv(outs, tile.outs), triton.cdiv(rows, tile.rows)
        split_inputs, splits = self._splits(tiles[0] * tiles[1], tile.inputs)
        dtype = x.dtype if splits == 1 else torch.float32
        parts = x.new_empty((splits, rows, outs), dtype=dtype)
        multiply_kernel[(*tiles, splits)](
            parts,
            x,
            self._values,
            self._scale,
            self._offset,
            rows,
            outs,
            self._inputs,
            split_inputs,
            IS_INT4=self._is_int4,
            GROUP=self._group,
            ROWS=tile.rows,
            OUTS=tile.outs,
            INPUTS=tile.inputs,
            PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        # Split by split and not by atomic additions: those come in any order, and round so.
        return parts[0] if splits == 1 else parts.sum(dim=0).to(x.dtype)

    def _splits(self, programs: int, step: int) -> tuple[int, int]:
        """Return the inputs of a split, and how many splits keep every processor busy."""
        wanted = max(1, PROGRAMS_PER_PROCESSOR * self._processors // programs)
        wanted = min(wanted, max(1, self._inputs // LEAST_SPLIT_INPUTS))
        split_inputs = triton.cdiv(self._inputs, wanted * step) * step
        return split_inputs, triton.cdiv(self._inputs, split_inputs)

    def _decoded(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out_features, in_features] in the dtype of computing."""
        outs = len(self._values)
        weight = torch.empty((outs, self._inputs), dtype=dtype, device=self._values.device)
        decode_kernel[(outs, triton.cdiv(self._inputs, DECODED_INPUTS))](
            weight,
            self._values,
            self._scale,
            self._offset,
            self._inputs,
            IS_INT4=self._is_int4,
            GROUP=self._group,
            INPUTS=DECODED_INPUTS,
        )
        return weight
