"""A tiny random model of every family, as transformers makes and saves it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONTEXT_TOKENS: Final = 128
WINDOW_TOKENS: Final = 20
"""Shorter than the prompts, and no multiple of anything: windows bite, and end inside blocks."""
SHAPE: Final[Mapping[str, Any]] = {
    "vocab_size": 260,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT_TOKENS,
    "eos_token_id": 259,
    "tie_word_embeddings": True,
    # Wide enough that two tokens are seldom equally likely.
    "initializer_range": 0.3,
}
EXPERTS: Final = 5
_MOE: Final = {"num_experts_per_tok": 2, "num_local_experts": EXPERTS}
_PARITY: Final = {"initializer_range": 0.15, "tie_word_embeddings": False, "pad_token_id": 0}
"""Smooth enough for bf16, and a head of its own: a small model with a tied one repeats itself."""


@dataclass(frozen=True)
class TinyFamily:
    """Names of transformers' classes, and what differs from the tiny llama."""

    config: str
    model: str
    changes: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: Final[Mapping[str, TinyFamily]] = {
    "llama": TinyFamily("LlamaConfig", "LlamaForCausalLM", {
        "attention_bias": True,
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
        "num_hidden_layers": 4,
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
        "sliding_window": WINDOW_TOKENS, "query_pre_attn_scalar": 12, "num_hidden_layers": 4,
        "sliding_window_pattern": 3,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }),
    "phi3": TinyFamily("Phi3Config", "Phi3ForCausalLM", {
        "sliding_window": WINDOW_TOKENS + 7,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "partial_rotary_factor": 0.5,
    }),
    "mixtral": TinyFamily("MixtralConfig", "MixtralForCausalLM", _MOE),
    "qwen3_moe": TinyFamily("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {
        **_MOE, "num_hidden_layers": 4, "moe_intermediate_size": 32, "mlp_only_layers": [2],
        "norm_topk_prob": True,
    }),
}  # fmt: skip


def family_model(name: str, **changes: Any) -> Any:
    """Return transformers' own model of this family with fixed random weights, in fp32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    family = FAMILIES[name]
    numbers = {**SHAPE, **_PARITY, **family.changes, **changes}
    torch.manual_seed(7)
    model = getattr(transformers, family.model)(getattr(transformers, family.config)(**numbers))
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if "norm" in parameter:
                # Gemma stores a norm's difference from 1.
                weight.normal_(0.0 if name.startswith("gemma") else 1.0, 0.2)
            elif "bias" in parameter or "experts" in parameter:
                weight.normal_(0.0, numbers["initializer_range"])
    return model.eval()


@torch.no_grad()
def decide_routes(model: Any) -> None:
    """Make a token's experts a matter of its id, so that rounding never chooses among them.

    The first dimensions tell the id modulo the experts, no layer writes to them, and routers read
    nothing else.
    """
    ids = torch.arange(SHAPE["vocab_size"]) % EXPERTS
    for name, weight in model.named_parameters():
        if "embed_tokens" in name:
            weight[:, :EXPERTS] = torch.nn.functional.one_hot(ids, EXPERTS).to(weight.dtype)
        elif name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
            weight[..., :EXPERTS, :] = 0
        elif name.endswith("gate.weight"):
            distance = (torch.arange(EXPERTS)[:, None] - torch.arange(EXPERTS)) % EXPERTS
            weight.zero_()[:, :EXPERTS] = torch.tensor([2.0, 1.0, -1.0, -2.0, -3.0])[distance]


def save_model(model: Any, folder: Path) -> None:
    """Save a model as transformers does, with a tokenizer of single bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer of single bytes and four special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|begin|>", "<|user|>", "<|pad|>", "<|end|>"])
    return tokenizer
