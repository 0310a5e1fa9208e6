"""The tiny llama as a GGUF file, written by the gguf package in llama.cpp's order of rows."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from benchmarks.tiny_models import byte_tokenizer

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "model.layers": "blk",
}


def save_gguf(model: Any, path: Path, kind: str = "F32", **changes: Any) -> None:
    """Write `model` with its matrices stored as `kind`; changes override or drop metadata."""
    config = model.config
    metadata = {
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.eos_token_id": 259,
    }
    writer = gguf.GGUFWriter(path, changes.pop("architecture", "llama"))
    for key, value in {**metadata, **changes}.items():
        if value is not None:
            writer.add_uint32(key, value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32("llama.rope.freq_base", config.rope_parameters["rope_theta"])
    add_vocabulary(writer)
    qtype = gguf.GGMLQuantizationType[kind]
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, count in heads.items():
            if part in name:
                values = (
                    values.reshape(count, 2, -1, config.hidden_size)
                    .swapaxes(1, 2)
                    .reshape(values.shape)
                )
        for old, new in _NAMES.items():
            name = name.replace(old, new)  # noqa: PLW2901
        values = np.ascontiguousarray(values)
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, qtype), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: Any) -> None:
    ids = byte_tokenizer().get_vocab(with_added_tokens=True)
    words = sorted(ids, key=lambda word: ids[word])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([3 if word.startswith("<|") else 1 for word in words])
    writer.add_token_merges([])
    writer.add_chat_template(
        "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|begin|>{% endif %}"
    )
