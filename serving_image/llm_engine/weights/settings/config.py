"""Read a decoder's settings from config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llm_engine.contract.shape import ModelShape
from llm_engine.contract.stored_format import StoredFormat
from llm_engine.weights.header import refuse
from llm_engine.weights.settings.decoder import Activation, DecoderSettings
from llm_engine.weights.settings.families import FAMILIES, Family
from llm_engine.weights.settings.rope import DEFAULT_THETA, Rope, rope_from_config
from llm_engine.weights.settings.values import (
    MOST_EXPERTS,
    MOST_LAYERS,
    Values,
    checked_shape,
    read_json_object,
    token_ids,
    unsupported,
)
from llm_engine.weights.stored_config import read_stored_format

_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_REFUSED: Final = ("mlp_bias", "use_bidirectional_attention")
_FULL, _WINDOWED = "full_attention", "sliding_attention"


def settings_from_folder(folder: Path) -> DecoderSettings:
    """Read config.json (and generation_config.json, for the end tokens)."""
    path = folder / "config.json"
    config = read_json_object(path)
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        unsupported(
            path, f"model_type is {config.get('model_type')!r}", f"serves {', '.join(FAMILIES)}"
        )
    if family.is_nested:
        inner = config.get("text_config")
        if not isinstance(inner, dict):
            refuse(path, f"text_config is {inner!r:.100}", "an object")
        config = {**inner, **config}
    for flag in _REFUSED:
        if config.get(flag):
            unsupported(path, f"{flag} is {config[flag]!r:.100}", "needs it absent or false")
    values = Values(path, {**family.defaults, **config})
    stored = read_stored_format(path, config)
    shape = _shape(values, family, stored)
    rope, local_rope = _ropes(values, shape)
    generation = folder / "generation_config.json"
    ends = read_json_object(generation).get("eos_token_id") if generation.is_file() else None
    scale_of = values.positive("query_pre_attn_scalar", shape.head_dim)
    return DecoderSettings(
        shape=shape,
        names=family.names,
        stored=stored,
        rms_eps=values.positive("rms_norm_eps", 1e-6),
        rope=rope,
        local_rope=local_rope,
        activation=_activation(values),
        norm_offset=1.0 if family.is_gemma else 0.0,
        attention_scale=scale_of**-0.5,
        attention_softcap=values.optional_positive("attn_logit_softcapping"),
        logit_softcap=values.optional_positive("final_logit_softcapping"),
        embedding_scale=shape.hidden_size**0.5 if family.is_gemma else 1.0,
        chosen_sum_to_one=values.get("norm_topk_prob") is not False,
        eos_tokens=token_ids(path, config.get("eos_token_id")) | token_ids(generation, ends),
    )


def _shape(values: Values, family: Family, stored: StoredFormat | None) -> ModelShape:
    heads = values.whole("num_attention_heads")
    hidden = values.whole("hidden_size")
    layers = values.whole("num_hidden_layers", most=MOST_LAYERS)
    window = values.get("sliding_window")
    windowed = _windowed_layers(values, family, layers) if window is not None else ()
    bias = values.flag("attention_bias")
    return checked_shape(
        values.path,
        architecture=values.get("model_type"),
        layers=layers,
        hidden_size=hidden,
        intermediate_size=values.whole("intermediate_size"),
        query_heads=heads,
        kv_heads=values.whole("num_key_value_heads", heads),
        head_dim=values.whole("head_dim", hidden // heads if heads else 0),
        vocabulary=values.whole("vocab_size"),
        context_tokens=values.whole("max_position_embeddings"),
        tied_embeddings=values.flag("tie_word_embeddings"),
        window_tokens=values.whole("sliding_window") if windowed else None,
        windowed_layers=windowed,
        qkv_bias=bias or family.qkv_bias,
        out_bias=bias,
        qk_norm=family.qk_norm,
        post_norms=family.is_gemma,
        fp32_norms=family.is_gemma,
        stored_quantization=stored.quantization if stored else None,
        stored_group_size=stored.group_size if stored else None,
        **_experts(values, layers),
    )


def _windowed_layers(values: Values, family: Family, layers: int) -> tuple[int, ...]:
    if values.get("use_sliding_window") is False:
        return ()
    kinds = values.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers:
            refuse(values.path, f"layer_types is {kinds!r:.100}", f"a list of {layers}")
        if not set(map(str, kinds)) <= {_FULL, _WINDOWED}:
            unsupported(values.path, f"layer_types is {kinds!r:.100}", f"has {_FULL}, {_WINDOWED}")
        return tuple(layer for layer, kind in enumerate(kinds) if kind == _WINDOWED)
    first = values.whole(family.first_windowed, layers) if family.first_windowed else 0
    every = family.full_every
    if every is not None:
        every = max(1, values.whole("sliding_window_pattern", every))
    return tuple(
        layer for layer in range(first, layers) if every is None or (layer + 1) % every != 0
    )


def _experts(values: Values, layers: int) -> dict[str, Any]:
    """Return the fields of a shape that tell of experts: none where there are none."""
    given = "num_experts" if values.get("num_experts") is not None else "num_local_experts"
    if not values.get(given):
        return {}
    every = max(1, values.whole("decoder_sparse_step", 1))
    dense = set(values.layers("mlp_only_layers"))
    dense |= {layer for layer in range(layers) if (layer + 1) % every != 0}
    return {
        "experts": values.whole(given, most=MOST_EXPERTS),
        "experts_per_token": values.whole("num_experts_per_tok"),
        "expert_size": values.whole("moe_intermediate_size", values.whole("intermediate_size")),
        "dense_layers": tuple(sorted(dense)),
    }


def _activation(values: Values) -> Activation:
    name = values.get("hidden_activation") or values.get("hidden_act") or "silu"
    activation = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if activation is None:
        known = f"knows {', '.join(_ACTIVATIONS)}"
        unsupported(values.path, f"hidden_act is {name!r:.100}", known)
    return activation


def _ropes(values: Values, shape: ModelShape) -> tuple[Rope, Rope | None]:
    """Return the rotations of all layers, and those of windowed layers where they differ.

    transformers 5 writes `rope_parameters`, per kind of layer where they differ; before, it was
    `rope_theta`, `rope_scaling` and, for Gemma 3, `rope_local_base_freq`.
    """
    given = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(given, dict):
        refuse(values.path, f"the rope parameters are {given!r:.100}", "an object")
    shared = {
        "rope_theta": values.get("rope_theta") or DEFAULT_THETA,
        "partial_rotary_factor": values.get("partial_rotary_factor"),
        "original_max_position_embeddings": values.get("original_max_position_embeddings"),
    }

    def rope(*layers: Mapping[str, Any]) -> Rope:
        merged = {key: value for layer in layers for key, value in layer.items()}
        return rope_from_config(Values(values.path, merged), shape.head_dim, shape.context_tokens)

    if isinstance(given.get(_FULL), dict):
        local = given.get(_WINDOWED)
        local = local if isinstance(local, dict) else {}
        local_theta = {"rope_theta": values.get("rope_local_base_freq") or DEFAULT_THETA}
        return rope(shared, given[_FULL]), rope(shared, local_theta, local)
    local_theta = {"rope_theta": values.get("rope_local_base_freq")}
    local_rope = rope(local_theta) if local_theta["rope_theta"] else None
    return rope(shared, given), local_rope
