"""A linear's weight before it becomes a linear: in pieces as checkpoints have them."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from llm_engine.quantization.fp8 import Fp8Weight
from llm_engine.quantization.int4 import Int4Weight
from llm_engine.quantization.int8 import Int8Weight

QuantizedWeight: TypeAlias = Int8Weight | Int4Weight | Fp8Weight
Weight: TypeAlias = Tensor | QuantizedWeight


def fuse(pieces: Sequence[Weight], dtype: torch.dtype, device: torch.device) -> Weight:
    """Put pieces below each other, along the output, in memory of their own on `device`.

    Pieces that are kept in different ways are decoded to `dtype`: a checkpoint may leave some out.
    """
    first = pieces[0]
    if isinstance(first, Tensor) or len({_layout(piece) for piece in pieces}) > 1:
        # One copy even where nothing changes: memory of our own, not pages of a file.
        plain = [decoded(piece).to(device=device, dtype=dtype) for piece in pieces]
        return torch.cat(plain) if len(plain) > 1 else plain[0].clone()
    columns = zip(*(_parts(piece) for piece in pieces), strict=True)
    return type(first)(*(torch.cat(parts).to(device=device) for parts in columns))


def decoded(weight: Weight) -> Tensor:
    """Return what a weight stands for: in fp32 where it is quantized."""
    return weight if isinstance(weight, Tensor) else weight.decoded()


def _layout(weight: Weight) -> tuple[object, ...]:
    """Return what must be equal for two weights to be put below each other."""
    if isinstance(weight, Tensor):
        return (Tensor,)
    return type(weight), *((part.shape[1:], part.dtype) for part in _parts(weight))


def _parts(weight: Weight) -> tuple[Tensor, ...]:
    return () if isinstance(weight, Tensor) else tuple(vars(weight).values())
