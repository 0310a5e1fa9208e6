"""Rotary position embedding: cosines and sines per position."""

import math

import torch
from torch import Tensor

from llm_engine.weights.settings import DecoderSettings, Llama3Scaling


def rotary_table(
    settings: DecoderSettings, positions: int, factors: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, fp32 [positions, head_dim], both halves equal.

    factors  [head_dim / 2] or None: what a GGUF file divides each frequency by
    """
    head_dim = settings.shape.head_dim
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / settings.rope_theta**exponents / settings.rope_factor
    if settings.rope_llama3 is not None:
        frequencies = _stretch(frequencies, settings.rope_llama3)
    if factors is not None:
        frequencies = frequencies / factors
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos(), doubled.sin()


def _stretch(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Slow rotations down by `factor`, leave fast ones, and blend in between (Llama 3.1)."""
    turns = scaling.original_context_tokens * frequencies / (2 * math.pi)
    spread = scaling.high_freq_factor - scaling.low_freq_factor
    kept = ((turns - scaling.low_freq_factor) / spread).clamp(0.0, 1.0)
    return frequencies * (kept + (1 - kept) / scaling.factor)


def rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate every head by its token's position.

    heads            [tokens, heads, head_dim]
    cosines, sines   [tokens, 1, head_dim], the first half of the sines negated
    """
    half = heads.shape[-1] // 2
    swapped = torch.roll(heads, half, dims=-1)
    return torch.addcmul(heads * cosines, swapped, sines)
