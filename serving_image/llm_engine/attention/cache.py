"""The paged KV cache: one tensor per slot of a layer group, cut into blocks."""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from llm_engine.contract.layer_groups import LayerGroup, group_layers, layer_groups
from llm_engine.contract.shape import ModelShape


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer.

    A block belongs to one layer group at a time, and holds the keys and values of all its layers:
    the group's layer `i` lives in slot `i`.

    slots   per slot [blocks, 2, kv_heads, block_tokens, head_dim]: a block's keys, then its
            values. A block is one contiguous piece of memory, and so is each head in it.
    groups  the layers of each group
    places  per layer its (group, slot)
    """

    slots: tuple[Tensor, ...]
    groups: tuple[LayerGroup, ...]
    places: tuple[tuple[int, int], ...]
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
        size = (blocks, 2, shape.kv_heads, block_tokens, shape.head_dim)
        groups = layer_groups(shape)
        places = {
            layer: (number, slot)
            for number, group in enumerate(groups)
            for slot, layer in enumerate(group.layers)
        }
        return cls(
            slots=tuple(_zeros(size, dtype, device) for _ in range(group_layers(shape))),
            groups=groups,
            places=tuple(places[layer] for layer in range(shape.layers)),
            blocks=blocks,
            block_tokens=block_tokens,
        )

    @property
    def nbytes(self) -> int:
        """Return the bytes of all slots."""
        return sum(slot.nbytes for slot in self.slots)

    def rows(self, slots: Tensor) -> Tensor:
        """Return where `write` puts each head's key and value, as rows of head_dim elements.

        slots    [tokens]: block * block_tokens + offset
        returns  [tokens * 2 * kv_heads]
        """
        _, both, kv_heads, block_tokens, _ = self.slots[0].shape
        heads = torch.arange(both * kv_heads, device=slots.device)
        block, offset = slots // block_tokens, slots % block_tokens
        first = block * (both * kv_heads * block_tokens) + offset
        return (first[:, None] + heads * block_tokens).reshape(-1)

    def write(self, slot: int, rows: Tensor, keys_values: Tensor) -> None:
        """Store a step's keys and values.

        rows         from `rows`, the same for every layer of a group
        keys_values  [tokens, 2, kv_heads, head_dim]
        """
        head_dim = keys_values.shape[-1]
        self.slots[slot].view(-1, head_dim).index_copy_(0, rows, keys_values.view(-1, head_dim))


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
