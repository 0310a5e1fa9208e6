"""The paged KV cache: one tensor per layer, cut into blocks."""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from llm_engine.contract.shape import ModelShape


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer.

    layers  per layer [2, kv_heads, blocks * block_tokens, head_dim]: keys, then values. Head-major,
            so that one block of one head is one contiguous piece of memory.
    """

    layers: tuple[Tensor, ...]
    blocks: int
    block_tokens: int

    @classmethod
    def allocate(
        cls,
        shape: ModelShape,
        blocks: int,
        block_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "KVCache":
        """Allocate zeros: a masked position may be read, and must then not be a NaN."""
        size = (2, shape.kv_heads, blocks * block_tokens, shape.head_dim)
        layers = tuple(_zeros(size, dtype, device) for _ in range(shape.layers))
        return cls(layers, blocks, block_tokens)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all layers."""
        return sum(layer.nbytes for layer in self.layers)

    def write(self, layer: int, slots: Tensor, keys_values: Tensor) -> None:
        """Store the step's keys and values.

        slots        [tokens]: block * block_tokens + offset
        keys_values  [tokens, 2, kv_heads, head_dim]
        """
        self.layers[layer].index_copy_(2, slots, keys_values.permute(1, 2, 0, 3))


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    # numpy asks the kernel for zeroed pages, which take memory only once they are written;
    # torch would write every one of them now.
    return (
        torch.from_numpy(np.zeros(prod(size) * dtype.itemsize, dtype=np.uint8))
        .view(dtype)
        .view(size)
    )
