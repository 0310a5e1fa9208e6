"""How weights are kept in memory."""

from enum import StrEnum
from typing import Final


class Quantization(StrEnum):
    """Layout of the linear weights in memory; the values are those of the custom resource."""

    NONE = "None"
    INT8 = "Int8"
    INT4 = "Int4"
    FP8 = "FP8"


ROW_SCALE_BYTES: Final = 4
"""Bytes of the fp32 scale that int8 and fp8 keep per output row (symmetric, no zero point)."""
INT4_GROUP_SIZE: Final = 32
"""Weights along the input that share a scale and an offset, where the engine quantizes to int4."""
INT4_GROUP_BYTES: Final = 4
"""Bytes of that scale and that offset, both bf16."""
STORED_INT4_GROUP_BYTES: Final = 8
"""The same of a checkpoint that is quantized already, both fp32: only these lose nothing."""


def linear_bytes(
    quantization: Quantization, out_features: int, in_features: int, dtype_bytes: int
) -> int:
    """Return the bytes that one linear weight takes in memory.

    dtype_bytes  bytes per element of the compute dtype, used where nothing is quantized
    """
    elements = out_features * in_features
    if quantization in (Quantization.INT8, Quantization.FP8):
        return elements + out_features * ROW_SCALE_BYTES
    if quantization is Quantization.INT4 and has_whole_groups(in_features):
        return elements // 2 + elements // INT4_GROUP_SIZE * INT4_GROUP_BYTES
    return elements * dtype_bytes


def stored_linear_bytes(
    quantization: Quantization, out_features: int, in_features: int, group_size: int | None
) -> int:
    """Return the bytes that one linear weight of a quantized checkpoint takes in memory.

    group_size  inputs that share a scale in the checkpoint; None: all inputs of a row do
    """
    elements = out_features * in_features
    groups = out_features * -(-in_features // (group_size or in_features))
    if quantization is Quantization.INT4:
        return elements // 2 + groups * STORED_INT4_GROUP_BYTES
    return elements + groups * ROW_SCALE_BYTES


def has_whole_groups(in_features: int) -> bool:
    """Whether int4 can keep such a linear: one that has no whole groups stays as computed."""
    return in_features % INT4_GROUP_SIZE == 0
