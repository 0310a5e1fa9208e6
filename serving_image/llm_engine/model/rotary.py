"""Rotary position embedding: cosines and sines per position."""

import math

import torch
from torch import Tensor

from llm_engine.weights.settings.rope import (
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    Rope,
    YarnScaling,
)


def rotary_table(rope: Rope, positions: int, factors: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, fp32 [positions, rotary_dim]; see `rotate`.

    positions  the longest context that is served
    factors    [rotary_dim / 2] or None: what a GGUF file divides each frequency by
    """
    frequencies, magnitude = _frequencies(rope, positions)
    if factors is not None:
        frequencies = frequencies / factors
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    cosines, sines = angles.cos() * magnitude, angles.sin() * magnitude
    # The first half of a rotated head is x1 cos - x2 sin: the sign goes into the table.
    return torch.cat((cosines, cosines), dim=-1), torch.cat((-sines, sines), dim=-1)


def rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate every head by its token's position.

    heads            [tokens, heads, head_dim]
    cosines, sines   [tokens, 1, rotary_dim], the first half of the sines negated
    """
    rotary_dim = cosines.shape[-1]
    if rotary_dim < heads.shape[-1]:
        turned = rotate(heads[..., :rotary_dim], cosines, sines)
        return torch.cat((turned, heads[..., rotary_dim:]), dim=-1)
    swapped = torch.roll(heads, rotary_dim // 2, dims=-1)
    return torch.addcmul(heads * cosines, swapped, sines)


def _frequencies(rope: Rope, positions: int) -> tuple[Tensor, float]:
    """Return radians per position [rotary_dim / 2], and the factor on cosines and sines."""
    exponents = torch.arange(0, rope.rotary_dim, 2, dtype=torch.float32) / rope.rotary_dim
    plain = 1.0 / rope.theta**exponents
    match rope.scaling:
        case None:
            return plain, 1.0
        case LinearScaling(factor):
            return plain / factor, 1.0
        case Llama3Scaling():
            return _llama3(plain, rope.scaling), 1.0
        case YarnScaling():
            return _yarn(plain, rope, rope.scaling)
        case LongScaling():
            return _long(plain, rope.scaling, positions)


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Slow rotations down by `factor`, leave fast ones, and blend in between (Llama 3.1)."""
    turns = scaling.original_context_tokens * plain / (2 * math.pi)
    spread = scaling.high_freq_factor - scaling.low_freq_factor
    kept = ((turns - scaling.low_freq_factor) / spread).clamp(0.0, 1.0)
    return plain * (kept + (1 - kept) / scaling.factor)


def _yarn(plain: Tensor, rope: Rope, scaling: YarnScaling) -> tuple[Tensor, float]:
    """Blend along the dimensions, not along the frequencies as Llama 3.1 does."""

    def dimension(turns: float) -> float:
        """Return which dimension makes so many turns within the original context."""
        reach = scaling.original_context_tokens / (turns * 2 * math.pi)
        return rope.rotary_dim * math.log(reach) / (2 * math.log(rope.theta))

    first, last = dimension(scaling.fast_turns), dimension(scaling.slow_turns)
    if scaling.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rope.rotary_dim - 1)
    spread = last - first or 0.001
    slowed = ((torch.arange(len(plain), dtype=torch.float32) - first) / spread).clamp(0.0, 1.0)
    magnitude = scaling.magnitude or 0.1 * math.log(max(1.0, scaling.factor)) + 1.0
    return plain / scaling.factor * slowed + plain * (1 - slowed), magnitude


def _long(plain: Tensor, scaling: LongScaling, positions: int) -> tuple[Tensor, float]:
    is_long = positions > scaling.original_context_tokens
    divisors = torch.tensor(scaling.long if is_long else scaling.short, dtype=torch.float32)
    stretch = math.log(max(1.0, scaling.factor)) / math.log(scaling.original_context_tokens)
    return plain / divisors, scaling.magnitude or math.sqrt(1 + stretch)
