"""Decode fp8 on a CPU: torch converts it value by value, ten times slower than these operators.

The bits of e4m3, moved to where fp16 has its exponent, are the value divided by 256: fp16 has one
bit of exponent more, and its bias is 8 more. The two codes for "not a number" come out as 480,
which no weight is.
"""

from typing import Final

import torch
from torch import Tensor

SCALED_INPUTS: Final = 128
"""Inputs that share a scale where a checkpoint scales by blocks."""
_KEPT_BITS: Final = -0x8000 | 0x3F80
"""Of 16: the sign, and the 7 bits of e4m3 below fp16's highest bit of exponent."""
_FP16_TOO_SMALL: Final = 256.0


def scale_per_input(scale: Tensor, in_features: int) -> Tensor:
    """Return scales that multiply a weight: [rows, 1], or [rows, in_features]."""
    if scale.shape[1] == 1:
        return scale
    return scale.repeat_interleave(SCALED_INPUTS, dim=1)[:, :in_features]


class Fp8Decoder:
    """Decodes a few rows at a time into buffers of its own: fresh memory costs most of the time.

    What `__call__` returns is overwritten by the next call.
    """

    def __init__(self, values: Tensor, scale: Tensor, rows: int, dtype: torch.dtype) -> None:
        self._bytes = values.view(torch.int8)
        self._scale = scale * _FP16_TOO_SMALL
        width = values.shape[1]
        self._words = torch.empty(rows, width, dtype=torch.int16)
        self._exact = torch.empty(rows, width)
        self._out = torch.empty(rows, width, dtype=dtype)

    def __call__(self, begin: int, end: int) -> Tensor:
        """Return rows [begin, end) of the weight in `dtype`."""
        count = end - begin
        words = self._words[:count].copy_(self._bytes[begin:end])
        words.mul_(1 << 7).bitwise_and_(_KEPT_BITS)
        exact = self._exact[:count].copy_(words.view(torch.float16))
        exact.mul_(scale_per_input(self._scale[begin:end], exact.shape[1]))
        return self._out[:count].copy_(exact)
