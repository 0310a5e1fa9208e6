"""From config.json or GGUF metadata to one description of the decoder."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.contract.shape import ModelShape
from llm_engine.weights.header import refuse

ARCHITECTURE: Final = "llama"
DEFAULT_ROPE_THETA: Final = 10_000.0
MOST_CONTEXT_TOKENS: Final = 16_777_216
"""A longer context than any model's: a larger figure is a mistake, not a model."""


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 stretches slow rotations for contexts beyond its original one."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_tokens: int


@dataclass(frozen=True)
class DecoderSettings:
    """All that the decoder needs beside its weights.

    rope_theta    base of the rotary frequencies
    rope_factor   every position is divided by it ("linear" scaling); 1.0 where none
    eos_tokens    ids that end a text
    """

    shape: ModelShape
    rms_eps: float
    rope_theta: float = DEFAULT_ROPE_THETA
    rope_factor: float = 1.0
    rope_llama3: Llama3Scaling | None = None
    eos_tokens: frozenset[int] = frozenset()


def settings_from_folder(folder: Path) -> DecoderSettings:
    """Read config.json (and generation_config.json, for the end tokens)."""
    path = folder / "config.json"
    config = read_json_object(path)
    model_type = config.get("model_type")
    if model_type != ARCHITECTURE:
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{path}: model_type is {model_type!r}; this engine serves {ARCHITECTURE!r}",
        )
    for flag in ("attention_bias", "mlp_bias", "quantization_config"):
        if config.get(flag):
            raise ModelRefused(
                FailureReason.UNSUPPORTED_MODEL,
                f"{path}: {flag} is {config[flag]!r:.100}; this engine needs it absent or false",
            )
    numbers = _Numbers(path, config)
    heads = numbers.whole("num_attention_heads")
    hidden = numbers.whole("hidden_size")
    shape = _shape(
        path,
        architecture=ARCHITECTURE,
        layers=numbers.whole("num_hidden_layers"),
        hidden_size=hidden,
        intermediate_size=numbers.whole("intermediate_size"),
        query_heads=heads,
        kv_heads=numbers.whole("num_key_value_heads", heads),
        head_dim=numbers.whole("head_dim", hidden // heads if heads else 0),
        vocabulary=numbers.whole("vocab_size"),
        context_tokens=numbers.whole("max_position_embeddings"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )
    # transformers 5 writes rope_parameters; before, rope_theta and rope_scaling.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        refuse(path, f"the rope parameters are {rope!r:.100}", "an object")
    theta = rope.get("rope_theta", config.get("rope_theta", DEFAULT_ROPE_THETA))
    generation = folder / "generation_config.json"
    ends = read_json_object(generation).get("eos_token_id") if generation.is_file() else None
    return DecoderSettings(
        shape=shape,
        rms_eps=numbers.positive("rms_norm_eps", 1e-6),
        rope_theta=_Numbers(path, {"rope_theta": theta}).positive("rope_theta"),
        eos_tokens=_token_ids(path, config.get("eos_token_id")) | _token_ids(generation, ends),
        **_scaling(path, rope),
    )


def _scaling(path: Path, rope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rope fields of the settings that a scaling asks for."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    numbers = _Numbers(path, rope)
    if kind == "default":
        return {}
    if kind == "linear":
        return {"rope_factor": numbers.positive("factor")}
    if kind == "llama3":
        scaling = Llama3Scaling(
            factor=numbers.positive("factor"),
            low_freq_factor=numbers.positive("low_freq_factor"),
            high_freq_factor=numbers.positive("high_freq_factor"),
            original_context_tokens=numbers.whole("original_max_position_embeddings"),
        )
        return {"rope_llama3": scaling}
    raise ModelRefused(
        FailureReason.UNSUPPORTED_MODEL,
        f"{path}: rope type is {kind!r}; this engine knows default, linear and llama3",
    )


def settings_from_gguf(
    path: Path, metadata: Mapping[str, Any], tied_embeddings: bool
) -> DecoderSettings:
    """Read the settings from a GGUF file's metadata; a head of its own is seen from the tensors."""
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{path}: general.architecture is {architecture!r}; "
            f"this engine serves {ARCHITECTURE!r}",
        )
    numbers = _Numbers(path, metadata)
    if numbers.whole("llama.expert_count", 0):
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{path}: llama.expert_count is {metadata['llama.expert_count']}; "
            "this engine serves dense models",
        )
    kind = metadata.get("llama.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{path}: llama.rope.scaling.type is {kind!r}; this engine knows none and linear",
        )
    heads = numbers.whole("llama.attention.head_count")
    hidden = numbers.whole("llama.embedding_length")
    vocabulary = len(metadata.get("tokenizer.ggml.tokens", ()))
    shape = _shape(
        path,
        architecture=ARCHITECTURE,
        layers=numbers.whole("llama.block_count"),
        hidden_size=hidden,
        intermediate_size=numbers.whole("llama.feed_forward_length"),
        query_heads=heads,
        kv_heads=numbers.whole("llama.attention.head_count_kv", heads),
        head_dim=numbers.whole("llama.attention.key_length", hidden // heads if heads else 0),
        vocabulary=numbers.whole("llama.vocab_size", vocabulary),
        context_tokens=numbers.whole("llama.context_length"),
        tied_embeddings=tied_embeddings,
    )
    factor = numbers.positive("llama.rope.scaling.factor") if kind == "linear" else 1.0
    return DecoderSettings(
        shape=shape,
        rms_eps=numbers.positive("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=numbers.positive("llama.rope.freq_base", DEFAULT_ROPE_THETA),
        rope_factor=factor,
        eos_tokens=_token_ids(path, metadata.get("tokenizer.ggml.eos_token_id")),
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, or refuse the model."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelRefused(
            FailureReason.INVALID_MODEL, f"{path} is missing; expected it beside the weights"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        refuse(path, f"not readable as JSON ({error})", "a JSON object")
    if not isinstance(content, dict):
        refuse(path, f"a JSON {type(content).__name__}", "a JSON object")
    return content


class _Numbers:
    """Numbers of a configuration, checked as they are read."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            refuse(self.path, f"{name} is {value!r:.100}", "a whole number")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name)
        value = default if value is None else value
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is None or not is_number or not (math.isfinite(value) and value > 0):
            refuse(self.path, f"{name} is {value!r:.100}", "a positive number")
        return float(value)


def _shape(path: Path, **numbers: Any) -> ModelShape:
    try:
        shape = ModelShape(**numbers)
    except ValidationError as error:
        first = error.errors()[0]
        refuse(path, f"{first['loc'][0]} is {first['input']!r:.100}", str(first["msg"]))
    if shape.query_heads % shape.kv_heads:
        refuse(
            path,
            f"{shape.query_heads} query heads on {shape.kv_heads} key-value heads",
            "a multiple",
        )
    if shape.head_dim % 2:
        refuse(path, f"head_dim is {shape.head_dim}", "an even number")
    if shape.context_tokens > MOST_CONTEXT_TOKENS:
        refuse(path, f"a context of {shape.context_tokens}", f"at most {MOST_CONTEXT_TOKENS}")
    return shape


def _token_ids(path: Path, value: Any) -> frozenset[int]:
    ids = () if value is None else value if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(token, int) and token >= 0 for token in ids):
        refuse(path, f"eos_token_id is {value!r:.100}", "one token id, or a list of them")
    return frozenset(ids)
