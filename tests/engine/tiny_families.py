"""A tiny random model of every family, as transformers makes and saves it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from tests.engine.tiny_llama import SHAPE, byte_tokenizer

WINDOW_TOKENS: Final = 20
_MOE: Final = {"num_experts_per_tok": 2, "num_local_experts": 5}


@dataclass(frozen=True)
class TinyFamily:
    """Names of transformers' classes, and what differs from the tiny llama."""

    config: str
    model: str
    changes: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: Final[Mapping[str, TinyFamily]] = {
    "llama": TinyFamily("LlamaConfig", "LlamaForCausalLM", {
        "tie_word_embeddings": False, "attention_bias": True,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    }),
    "mistral": TinyFamily("MistralConfig", "MistralForCausalLM", {
        "sliding_window": WINDOW_TOKENS,
    }),
    "qwen2": TinyFamily("Qwen2Config", "Qwen2ForCausalLM", {
        "use_sliding_window": True, "sliding_window": WINDOW_TOKENS, "max_window_layers": 1,
        "num_hidden_layers": 4, "tie_word_embeddings": False,
    }),
    "qwen3": TinyFamily("Qwen3Config", "Qwen3ForCausalLM", {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    }),
    "gemma2": TinyFamily("Gemma2Config", "Gemma2ForCausalLM", {
        "sliding_window": WINDOW_TOKENS, "query_pre_attn_scalar": 12, "num_hidden_layers": 4,
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0,
    }),
    "gemma3_text": TinyFamily("Gemma3TextConfig", "Gemma3ForCausalLM", {
        "sliding_window": WINDOW_TOKENS, "query_pre_attn_scalar": 12, "num_hidden_layers": 7,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }),
    "phi3": TinyFamily("Phi3Config", "Phi3ForCausalLM", {
        "sliding_window": WINDOW_TOKENS + 7, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "partial_rotary_factor": 0.5,
    }),
    "mixtral": TinyFamily("MixtralConfig", "MixtralForCausalLM", {
        **_MOE, "tie_word_embeddings": False,
    }),
    "qwen3_moe": TinyFamily("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {
        **_MOE, "num_hidden_layers": 4, "moe_intermediate_size": 32, "mlp_only_layers": [2],
        "norm_topk_prob": True,
    }),
}  # fmt: skip


def family_model(name: str, seed: int = 7, **changes: Any) -> Any:
    """Return transformers' own model of this family with fixed random weights, in fp32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    family = FAMILIES[name]
    numbers = {**SHAPE, "pad_token_id": 0, **family.changes, **changes}
    torch.manual_seed(seed)
    model = getattr(transformers, family.model)(getattr(transformers, family.config)(**numbers))
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if "norm" in parameter:
                centre = 0.0 if name.startswith("gemma") else 1.0
                weight.normal_(centre, 0.2)
            elif "bias" in parameter or "experts" in parameter:
                weight.normal_(0.0, 0.3)
    return model.eval()


def save_family(name: str, folder: Path, **changes: Any) -> Any:
    """Save the model as transformers does, with a tokenizer of single bytes; return it."""
    model = family_model(name, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return model
