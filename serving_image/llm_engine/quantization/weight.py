"""A linear's weight before it becomes a linear: in pieces as checkpoints have them."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from llm_engine.quantization.fp8 import Fp8Weight
from llm_engine.quantization.fp8_cpu import SCALED_INPUTS
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


def take_rows(weight: Weight, rows: Tensor) -> Weight:
    """Return some outputs of a weight, exactly as they are."""
    if isinstance(weight, Tensor):
        return weight[rows]
    return type(weight)(*(part[rows] for part in _parts(weight)))


def take_columns(weight: Weight, columns: range) -> Weight:
    """Return some neighbouring inputs of a weight, exactly as they are.

    Raises ValueError where the cut would go through a group that shares a scale.
    """
    own = slice(columns.start, columns.stop)
    match weight:
        case Int8Weight():
            return Int8Weight(weight.values[:, own].contiguous(), weight.scale)
        case Int4Weight():
            size = 2 * weight.codes.shape[1] // weight.scale.shape[1]
            groups = _whole_groups(columns, size)
            codes = weight.codes[:, columns.start // 2 : columns.stop // 2]
            scale, offset = weight.scale[:, groups], weight.offset[:, groups]
            return Int4Weight(codes.contiguous(), scale.contiguous(), offset.contiguous())
        case Fp8Weight():
            scale = weight.scale
            if scale.shape[1] > 1:
                scale = scale[:, _whole_groups(columns, SCALED_INPUTS)].contiguous()
            return Fp8Weight(weight.values[:, own].contiguous(), scale)
        case _:
            return weight[:, own].contiguous()


def _whole_groups(columns: range, size: int) -> slice:
    if columns.start % size or columns.stop % size:
        raise ValueError(
            f"inputs {columns.start} to {columns.stop} of a linear were asked for; its weights "
            f"share scales in groups of {size}, and a rank must hold whole groups"
        )
    return slice(columns.start // size, columns.stop // size)


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
