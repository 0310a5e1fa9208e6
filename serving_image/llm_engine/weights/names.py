"""The names of a llama's tensors, in safetensors and in GGUF, and the shapes they must have."""

from typing import Final

from llm_engine.contract.shape import ModelShape

EMBEDDING: Final = "model.embed_tokens.weight"
FINAL_NORM: Final = "model.norm.weight"
HEAD: Final = "lm_head.weight"
GGUF_ROPE_FACTORS: Final = "rope_freqs.weight"

# The linears of one layer in the order of ModelShape.linear_shapes, then its norms.
LINEARS: Final = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
NORMS: Final = ("input_layernorm", "post_attention_layernorm")

_GGUF_OUTER: Final = {
    EMBEDDING: "token_embd.weight",
    FINAL_NORM: "output_norm.weight",
    HEAD: "output.weight",
}
_GGUF_INNER: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def layer_tensor(layer: int, part: str) -> str:
    """Return the full name of one layer's tensor."""
    return f"model.layers.{layer}.{part}.weight"


def gguf_name(name: str) -> str:
    """Return what GGUF calls this tensor."""
    if name in _GGUF_OUTER:
        return _GGUF_OUTER[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_GGUF_INNER[part]}.weight"


def expected_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Return every tensor that a model of this shape must have, with its shape."""
    expected: dict[str, tuple[int, ...]] = {
        EMBEDDING: (shape.vocabulary, shape.hidden_size),
        FINAL_NORM: (shape.hidden_size,),
    }
    if not shape.tied_embeddings:
        expected[HEAD] = (shape.vocabulary, shape.hidden_size)
    for layer in range(shape.layers):
        for part, linear in zip(LINEARS, shape.linear_shapes, strict=True):
            expected[layer_tensor(layer, part)] = linear
        for part in NORMS:
            expected[layer_tensor(layer, part)] = (shape.hidden_size,)
    return expected
