"""Multiply by a weight that must be decoded first, without ever holding all of it decoded."""

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

CACHED_ELEMENTS: Final = 1 << 18
"""Decoded weights of a block on a CPU: they stay in its cache, and memory is read only once."""


def multiply_decoded(x: Tensor, shape: torch.Size, decode: Callable[[int, int], Tensor]) -> Tensor:
    """Return x wT for a weight of `shape`, [out_features, in_features].

    decode  gives rows [begin, end) of the weight in the dtype of `x`
    """
    rows = shape[0]
    if x.device.type != "cpu":
        return F.linear(x, decode(0, rows))
    step = rows_at_once(shape)
    out = x.new_empty(len(x), rows)
    for begin in range(0, rows, step):
        end = min(begin + step, rows)
        out[:, begin:end] = F.linear(x, decode(begin, end))
    return out


def rows_at_once(shape: torch.Size) -> int:
    """Return the rows of such a weight that are decoded at a time on a CPU."""
    rows, in_features = shape
    return min(rows, max(1, CACHED_ELEMENTS // in_features))
