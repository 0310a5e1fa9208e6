"""A linear whose weight is kept in the compute dtype."""

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

TRANSPOSED_ROWS: Final = range(2, 5)
"""For so few rows MKL in fp32 with AVX2 is 1.6x as fast computing (w xT)T, since it then packs x
and not w. In bf16, and with AVX-512, that is up to 2x as slow."""


class PlainLinear:
    """y = x wT + bias with a weight of [out_features, in_features]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias
        is_avx2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
        self._transposes = weight.device.type == "cpu" and weight.dtype is torch.float32 and is_avx2

    @property
    def weight_bytes(self) -> int:
        """Bytes that weight and bias take in memory."""
        return self._weight.nbytes + bias_bytes(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [rows, in_features] to [rows, out_features]."""
        if not (self._transposes and len(x) in TRANSPOSED_ROWS):
            return F.linear(x, self._weight, self._bias)
        columns = x.contiguous().t()
        if self._bias is None:
            return torch.mm(self._weight, columns).t().contiguous()
        return torch.addmm(self._bias[:, None], self._weight, columns).t().contiguous()


def bias_bytes(bias: Tensor | None) -> int:
    """Return the bytes of a linear's bias; 0 where it has none."""
    return 0 if bias is None else bias.nbytes
