"""A linear whose every row has the same bits, whatever rows come with it."""

from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

if TYPE_CHECKING:
    from llm_engine.quantization.linear import Linear

TILE_ROWS: Final = 16
"""Rows of each call: the kernels choose by their number in which order they sum."""


class TiledLinear:
    """Another linear, always called with the same number of rows. Slower where there are more."""

    def __init__(self, linear: "Linear") -> None:
        self._linear = linear

    @property
    def weight_bytes(self) -> int:
        """Bytes of the linear's weight."""
        return self._linear.weight_bytes

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features]."""
        if not len(x):
            return self._linear(x)
        padded = F.pad(x, (0, 0, 0, -len(x) % TILE_ROWS))
        return torch.cat([self._linear(tile) for tile in torch.split(padded, TILE_ROWS)])[: len(x)]
