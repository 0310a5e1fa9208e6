"""Which attention backend computes, and why another cannot."""

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final

import torch

from llm_engine.attention.backend import AttentionBackend, AttentionSettings
from llm_engine.attention.cache import KVCache
from llm_engine.contract.arguments import AttentionName

XFORMERS_TRITON_BELOW: Final = (3, 9)
"""Of xformers 0.0.35; seen to run with Triton 3.6, and to fail with 3.9."""


def choose_attention(name: AttentionName, device: torch.device) -> AttentionName:
    """Return the backend to use: Triton's kernels on a GPU, torch elsewhere, unless told.

    Raises ValueError if the one asked for cannot run here.
    """
    if name is AttentionName.AUTO:
        name = AttentionName.TRITON if device.type == "cuda" else AttentionName.TORCH
        return name if why_not(name, device) is None else AttentionName.TORCH
    reason = why_not(name, device)
    if reason is not None:
        raise ValueError(f"--attention {name} is not possible on {device}: {reason}")
    return name


def why_not(name: AttentionName, device: torch.device) -> str | None:
    """Return why a backend cannot run on this device; None: it can."""
    if name in (AttentionName.TORCH, AttentionName.INVARIANT):
        return None
    if find_spec("triton") is None:
        return "triton is not installed"
    if name is AttentionName.TRITON:
        if device.type == "cuda" or _is_interpreted():
            return None
        return "Triton's kernels need an NVIDIA GPU"
    if device.type != "cuda":
        return "xformers' paged attention needs an NVIDIA GPU"
    if find_spec("xformers") is None:
        return "xformers is not installed (pip install xformers)"
    if _triton_version() >= XFORMERS_TRITON_BELOW:
        below = ".".join(map(str, XFORMERS_TRITON_BELOW))
        return f"xformers' kernels use block pointers, which Triton has no more from {below} on"
    return None


def make_attention(
    name: AttentionName, cache: KVCache, settings: AttentionSettings
) -> AttentionBackend:
    """Build the backend of that name, as `choose_attention` returns it."""
    return _MAKERS[name](cache, settings)


def _triton_version() -> tuple[int, ...]:
    return tuple(int(part) for part in version("triton").split(".")[:2])


def _is_interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def _torch(cache: KVCache, settings: AttentionSettings) -> AttentionBackend:
    from llm_engine.attention.paged import PagedAttention

    return PagedAttention(cache, settings)


def _triton(cache: KVCache, settings: AttentionSettings) -> AttentionBackend:
    from llm_engine.attention.triton_paged import TritonAttention

    return TritonAttention(cache, settings)


def _xformers(cache: KVCache, settings: AttentionSettings) -> AttentionBackend:
    from llm_engine.attention.xformers_paged import XformersAttention

    return XformersAttention(cache, settings)


def _invariant(cache: KVCache, settings: AttentionSettings) -> AttentionBackend:
    from llm_engine.attention.invariant import InvariantAttention

    return InvariantAttention(cache, settings)


_MAKERS: Final[dict[AttentionName, Callable[[KVCache, AttentionSettings], AttentionBackend]]] = {
    AttentionName.TORCH: _torch,
    AttentionName.TRITON: _triton,
    AttentionName.XFORMERS: _xformers,
    AttentionName.INVARIANT: _invariant,
}
