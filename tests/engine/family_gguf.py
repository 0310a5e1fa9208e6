"""A family's tiny model as a GGUF file, as llama.cpp's converter writes it.

Names are those of the gguf package, so that ours are not tested against themselves.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from safetensors.numpy import load_file

from tests.engine.tiny_gguf import add_vocabulary

ARCHITECTURES: Final[Mapping[str, str]] = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3",
}  # fmt: skip
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(.*)")
_FIELDS: Final[Mapping[str, str]] = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "vocab_size": "vocab_size",
}


def save_family_gguf(family: str, folder: Path, config: Any, path: Path) -> None:
    """Convert the safetensors in `folder`; `config` is transformers'."""
    architecture = ARCHITECTURES[family]
    writer = gguf.GGUFWriter(path, architecture)
    for key, name in _FIELDS.items():
        if getattr(config, name, None) is not None:
            writer.add_uint32(f"{architecture}.{key}", getattr(config, name))
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None) is not None:
            writer.add_float32(f"{architecture}.{key}", getattr(config, key))
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32(f"{architecture}.rope.freq_base", rope["rope_theta"])
    rotary_dim = int(config.head_dim * rope.get("partial_rotary_factor", 1.0))
    writer.add_uint32(f"{architecture}.rope.dimension_count", rotary_dim)
    if rope["rope_type"] == "linear":
        writer.add_string(f"{architecture}.rope.scaling.type", "linear")
        writer.add_float32(f"{architecture}.rope.scaling.factor", rope["factor"])
    writer.add_uint32("tokenizer.ggml.eos_token_id", 259)
    add_vocabulary(writer)
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    called = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, values in _converted(architecture, config, load_file(folder / "model.safetensors")):
        found = called.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        writer.add_tensor(found, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _converted(
    architecture: str, config: Any, stored: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    experts: dict[str, dict[int, Any]] = {}
    for name, tensor in stored.items():
        values = tensor
        if architecture.startswith("gemma") and "norm" in name:
            values = values + 1
        part = name.split(".")[-2]
        if architecture == "llama" and part in heads:
            rows = values.reshape(heads[part], 2, -1, *values.shape[1:])
            values = rows.swapaxes(1, 2).reshape(values.shape)
        if (match := _EXPERT.fullmatch(name)) is not None:
            experts.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = values
        else:
            yield name, values
    for name, by_number in experts.items():
        yield name, np.stack([by_number[number] for number in sorted(by_number)])
