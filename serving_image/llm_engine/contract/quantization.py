"""How weights are kept in memory."""

from enum import StrEnum
from typing import Final


class Quantization(StrEnum):
    """Layout of the linear weights in memory; the values are those of the custom resource."""

    NONE = "None"
    INT8 = "Int8"


SCALE_BYTES: Final = 4
"""Bytes of the fp32 scale that int8 keeps per output channel (symmetric, no zero point)."""


def linear_bytes(
    quantization: Quantization, out_features: int, in_features: int, dtype_bytes: int
) -> int:
    """Return the bytes that one linear weight takes in memory.

    dtype_bytes  bytes per element of the compute dtype, used where nothing is quantized
    """
    elements = out_features * in_features
    if quantization is Quantization.INT8:
        return elements + out_features * SCALE_BYTES
    return elements * dtype_bytes
