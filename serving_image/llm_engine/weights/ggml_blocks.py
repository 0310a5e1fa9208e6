"""Decode the commonest block-quantized formats of GGUF with a few operators over a whole tensor.

The gguf package decodes every format, in slices of 16 rows: ten times slower, and start-up waits.
Formats: a block of 32 is a scale (and a minimum) in fp16, then values of 8 or 4 bits. A block of
256 ("K") has sub-blocks of 32 or 16, whose own scales (and minimums) are whole numbers.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, :2].view(torch.float16).float() * blocks[:, 2:].view(torch.int8)


def _q4_0(blocks: Tensor) -> Tensor:
    return blocks[:, :2].view(torch.float16).float() * (_nibbles(blocks[:, 2:]) - 8.0)


def _q4_1(blocks: Tensor) -> Tensor:
    head = blocks[:, :4].view(torch.float16).float()
    return head[:, :1] * _nibbles(blocks[:, 4:]) + head[:, 1:]


def _q4_k(blocks: Tensor) -> Tensor:
    scale, minimum = _k_scales(blocks)
    # Each 32 bytes hold one sub-block in their low halves, the next one in their high halves.
    packed = blocks[:, 16:].view(-1, 4, 1, 32)
    values = torch.cat((packed & 15, packed >> 4), dim=2).view(-1, 8, 32).float()
    return (scale * values - minimum).flatten(1)


def _q5_k(blocks: Tensor) -> Tensor:
    scale, minimum = _k_scales(blocks)
    packed = blocks[:, 48:].view(-1, 4, 1, 32)
    low = torch.cat((packed & 15, packed >> 4), dim=2).view(-1, 8, 32)
    # The fifth bits of sub-block i are bits i of 32 bytes.
    places = torch.arange(8, dtype=torch.uint8)[:, None]
    high = (blocks[:, 16:48].view(-1, 1, 32) >> places & 1) << 4
    return (scale * (low | high).float() - minimum).flatten(1)


def _q6_k(blocks: Tensor) -> Tensor:
    # Two halves of 128: each 64 bytes of four low bits, and 32 bytes of two high bits.
    low = blocks[:, :128].view(-1, 2, 1, 64)
    low = torch.cat((low & 15, low >> 4), dim=2).view(-1, 2, 4, 32)
    places = torch.tensor((0, 2, 4, 6), dtype=torch.uint8)[:, None]
    high = (blocks[:, 128:192].view(-1, 2, 1, 32) >> places & 3) << 4
    values = (low | high).view(-1, 16, 16).float() - 32.0
    scale = blocks[:, 208:].view(torch.float16).float() * blocks[:, 192:208].view(torch.int8)
    return (scale[:, :, None] * values).flatten(1)


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and minimums of the eight sub-blocks: fp32 [blocks, 8, 1].

    Both are whole numbers of 6 bits, packed in 12 bytes, times an fp16 factor of the whole block.
    """
    factors = blocks[:, :4].view(torch.float16).float()
    first, second, last = blocks[:, 4:16].view(-1, 3, 4).unbind(dim=1)
    scales = torch.cat((first & 63, last & 15 | first >> 6 << 4), dim=1)
    minimums = torch.cat((second & 63, last >> 4 | second >> 6 << 4), dim=1)
    return (factors[:, :1] * scales)[:, :, None], (factors[:, 1:] * minimums)[:, :, None]


def _nibbles(packed: Tensor) -> Tensor:
    """Return the low halves of 16 bytes, then their high halves: [blocks, 32] in fp32."""
    return torch.cat((packed & 15, packed >> 4), dim=1).float()


DECODERS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
"""[blocks, bytes of a block] to fp32 [blocks, elements of a block]."""
