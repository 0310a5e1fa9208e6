"""Round a weight some rows at a time: on the way each element takes many bytes."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from llm_engine.quantization.weight import QuantizedWeight, fuse

SLICE_ELEMENTS: Final = 1 << 22
"""Weights rounded at a time, with some 16 bytes each; rows do not know of each other."""


def quantize_in_slices(
    weight: Tensor,
    quantize: Callable[[Tensor], QuantizedWeight],
    dtype: torch.dtype,
    device: torch.device,
) -> QuantizedWeight:
    """Return what `quantize` makes of the whole weight as `dtype` on `device`."""
    rows = max(1, SLICE_ELEMENTS // weight.shape[1])
    slices = [
        quantize(weight[first : first + rows].to(device=device, dtype=dtype))
        for first in range(0, len(weight), rows)
    ]
    if len(slices) == 1:
        return slices[0]
    whole = fuse(slices, dtype, device)
    assert not isinstance(whole, Tensor)
    return whole
