"""Decode the commonest block-quantized formats of GGUF with a few operators over a whole tensor.

The gguf package decodes every format, in slices of 16 rows: ten times slower, and start-up waits.
Format: a block is a scale (and a minimum) in fp16, then 32 values of 8 or 4 bits.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

QUANTIZED_BLOCK: Final = 32
"""Elements of one block in each of these formats."""


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, :2].view(torch.float16).float() * blocks[:, 2:].view(torch.int8)


def _q4_0(blocks: Tensor) -> Tensor:
    return blocks[:, :2].view(torch.float16).float() * (_nibbles(blocks[:, 2:]) - 8.0)


def _q4_1(blocks: Tensor) -> Tensor:
    head = blocks[:, :4].view(torch.float16).float()
    return head[:, :1] * _nibbles(blocks[:, 4:]) + head[:, 1:]


def _nibbles(packed: Tensor) -> Tensor:
    """Return the low halves of 16 bytes, then their high halves: [blocks, 32] in fp32."""
    return torch.cat((packed & 15, packed >> 4), dim=1).float()


DECODERS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
}
"""[blocks, bytes of a block] to fp32 [blocks, 32]."""
