"""What each family is, where its configuration does not say so: one row per family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm_engine.weights import names
from llm_engine.weights.names import Names


@dataclass(frozen=True)
class Family:
    """Traits of one `model_type` of config.json.

    defaults       of transformers' configuration class, where they differ from the common ones
    qkv_bias       queries, keys and values have biases whatever the configuration says
    full_every     every so many-th layer sees everything, the others a window; None: all have one
    first_windowed the setting that says from which layer on there are windows; None: from 0 on
    is_nested      the text model's configuration is `text_config`; images are not served
    is_gemma       norms after as before, stored as difference from 1; embeddings are scaled
    """

    names: Names = names.LLAMA
    defaults: Mapping[str, Any] = field(default_factory=dict)
    qkv_bias: bool = False
    qk_norm: bool = False
    full_every: int | None = None
    first_windowed: str | None = None
    is_nested: bool = False
    is_gemma: bool = False


_QWEN: Final = {"use_sliding_window": False}
_GEMMA: Final = {
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
_GEMMA2: Final = {
    **_GEMMA,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 8192,
}
_GEMMA3: Final = {
    **_GEMMA,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "max_position_embeddings": 131_072,
    "vocab_size": 262_208,
}

FAMILIES: Final[Mapping[str, Family]] = {
    "llama": Family(),
    "mistral": Family(defaults={"sliding_window": 4096}),
    "mixtral": Family(
        names=names.MIXTRAL, defaults={"rope_theta": 1_000_000.0, "rms_norm_eps": 1e-5}
    ),
    "qwen2": Family(qkv_bias=True, first_windowed="max_window_layers", defaults=_QWEN),
    "qwen3": Family(
        qk_norm=True, first_windowed="max_window_layers", defaults={**_QWEN, "head_dim": 128}
    ),
    "qwen3_moe": Family(qk_norm=True, defaults={**_QWEN, "norm_topk_prob": False}),
    "gemma2": Family(names=names.GEMMA, full_every=2, is_gemma=True, defaults=_GEMMA2),
    "gemma3_text": Family(
        names=names.GEMMA, qk_norm=True, full_every=6, is_gemma=True, defaults=_GEMMA3
    ),
    "gemma3": Family(
        names=names.within("language_model.", names.GEMMA),
        qk_norm=True,
        full_every=6,
        is_nested=True,
        is_gemma=True,
        defaults=_GEMMA3,
    ),
    "phi3": Family(names=names.PHI3, defaults={"rms_norm_eps": 1e-5}),
}
"""By `model_type`. Defaults are those of transformers 5."""
