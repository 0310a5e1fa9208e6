"""Read a decoder's settings from the metadata of a GGUF file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_engine.contract.shape import ModelShape
from llm_engine.weights import names
from llm_engine.weights.names import Names
from llm_engine.weights.settings.decoder import DecoderSettings
from llm_engine.weights.settings.rope import DEFAULT_THETA, LinearScaling, Rope, checked_rotary_dim
from llm_engine.weights.settings.values import (
    MOST_EXPERTS,
    MOST_LAYERS,
    Values,
    checked_shape,
    token_ids,
    unsupported,
)


@dataclass(frozen=True)
class Architecture:
    """What a `general.architecture` means: which the file itself does not say.

    full_every  every so many-th layer sees everything, the others a window; None: all have one
    local_theta base of the rotations in windowed layers; None: that of all layers
    """

    names: Names = names.GGUF
    qkv_bias: bool = False
    qk_norm: bool = False
    full_every: int | None = None
    local_theta: float | None = None
    is_gemma: bool = False


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "llama": Architecture(names=names.GGUF_LLAMA),  # and mistral, and mixtral
    "qwen2": Architecture(qkv_bias=True),
    "qwen3": Architecture(qk_norm=True),
    "qwen3moe": Architecture(qk_norm=True),
    "gemma2": Architecture(full_every=2, is_gemma=True),
    "gemma3": Architecture(qk_norm=True, full_every=6, local_theta=DEFAULT_THETA, is_gemma=True),
    "phi3": Architecture(names=names.GGUF_PHI3),
}


def settings_from_gguf(
    path: Path, metadata: Mapping[str, Any], tied_embeddings: bool
) -> DecoderSettings:
    """Read the settings from a GGUF file's metadata; a head of its own is seen from the tensors."""
    name = metadata.get("general.architecture")
    architecture = ARCHITECTURES.get(str(name))
    if architecture is None:
        unsupported(path, f"general.architecture is {name!r}", f"serves {', '.join(ARCHITECTURES)}")
    values = Values(path, metadata)
    prefix = f"{name}."
    shape = _shape(values, prefix, architecture, tied_embeddings)
    kind = metadata.get(prefix + "rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        unsupported(path, f"{prefix}rope.scaling.type is {kind!r}", "knows none and linear")
    scaling = (
        LinearScaling(values.positive(prefix + "rope.scaling.factor")) if kind == "linear" else None
    )
    rotary_dim = checked_rotary_dim(
        values, values.whole(prefix + "rope.dimension_count", shape.head_dim), shape.head_dim
    )
    theta = values.positive(prefix + "rope.freq_base", DEFAULT_THETA)
    local = architecture.local_theta
    return DecoderSettings(
        shape=shape,
        names=architecture.names,
        rms_eps=values.positive(prefix + "attention.layer_norm_rms_epsilon"),
        rope=Rope(theta, rotary_dim, scaling),
        local_rope=None if local is None else Rope(local, rotary_dim),
        activation="gelu_tanh" if architecture.is_gemma else "silu",
        # llama.cpp's converter has already added 1 to Gemma's norms.
        attention_scale=_gemma_scale(shape, str(name)) or shape.head_dim**-0.5,
        attention_softcap=values.optional_positive(prefix + "attn_logit_softcapping"),
        logit_softcap=values.optional_positive(prefix + "final_logit_softcapping"),
        embedding_scale=shape.hidden_size**0.5 if architecture.is_gemma else 1.0,
        eos_tokens=token_ids(path, metadata.get("tokenizer.ggml.eos_token_id")),
    )


def _shape(
    values: Values, prefix: str, architecture: Architecture, tied_embeddings: bool
) -> ModelShape:
    heads = values.whole(prefix + "attention.head_count")
    hidden = values.whole(prefix + "embedding_length")
    layers = values.whole(prefix + "block_count", most=MOST_LAYERS)
    vocabulary = len(values.get("tokenizer.ggml.tokens") or ())
    window = values.whole(prefix + "attention.sliding_window", 0)
    every = architecture.full_every
    windowed = tuple(
        layer for layer in range(layers if window else 0) if every is None or (layer + 1) % every
    )
    experts = values.whole(prefix + "expert_count", 0, most=MOST_EXPERTS)
    wide = values.whole(prefix + "feed_forward_length", 0 if experts else None)
    expert_fields = {
        "experts": experts,
        "experts_per_token": values.whole(prefix + "expert_used_count", 0),
        "expert_size": values.whole(prefix + "expert_feed_forward_length", wide),
    }
    return checked_shape(
        values.path,
        architecture=prefix.removesuffix("."),
        layers=layers,
        hidden_size=hidden,
        intermediate_size=wide,
        query_heads=heads,
        kv_heads=values.whole(prefix + "attention.head_count_kv", heads),
        head_dim=values.whole(prefix + "attention.key_length", hidden // heads if heads else 0),
        vocabulary=values.whole(prefix + "vocab_size", vocabulary),
        context_tokens=values.whole(prefix + "context_length"),
        tied_embeddings=tied_embeddings,
        window_tokens=window if windowed else None,
        windowed_layers=windowed,
        qkv_bias=architecture.qkv_bias,
        qk_norm=architecture.qk_norm,
        post_norms=architecture.is_gemma,
        fp32_norms=architecture.is_gemma,
        **(expert_fields if experts else {}),
    )


def _gemma_scale(shape: ModelShape, architecture: str) -> float | None:
    """Return the factor on scores of the two models whose factor no file tells: both 27B."""
    layers = {"gemma2": 46, "gemma3": 62}.get(architecture)
    if layers != shape.layers:
        return None
    return 1 / math.sqrt(shape.hidden_size / shape.query_heads)
