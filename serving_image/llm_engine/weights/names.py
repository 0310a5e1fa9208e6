"""What a family's files call their tensors, and the shapes that these must have.

A table per family; the suffix `.weight` (or `.bias`) is left out. `{layer}` and `{expert}` stand
for numbers; an expert's linear without `{expert}` in its name is part of a tensor of all experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from llm_engine.contract.shape import ModelShape


@dataclass(frozen=True)
class Names:
    """Names of one family's tensors.

    query_key_value  three tensors, or one with query, key and value below each other
    gate_up          two tensors, or one with gate and up below each other; so for experts
    interleaved      heads of queries and keys have the order of llama.cpp's llamas: rows that are
                     rotated together are neighbours
    """

    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    layer: str = "model.layers.{layer}."
    attention_norm: str = "input_layernorm"
    query_key_value: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    query_norm: str = "self_attn.q_norm"
    key_norm: str = "self_attn.k_norm"
    attention_out: str = "self_attn.o_proj"
    attention_post_norm: str = "post_attention_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    mlp_post_norm: str = "post_feedforward_layernorm"
    router: str = "mlp.gate"
    expert_gate_up: tuple[str, ...] = (
        "mlp.experts.{expert}.gate_proj",
        "mlp.experts.{expert}.up_proj",
    )
    expert_down: str = "mlp.experts.{expert}.down_proj"
    interleaved: bool = False


def within(prefix: str, names: Names) -> Names:
    """Return the names of a text model that is a part of a larger one."""
    outer = ("embedding", "final_norm", "head", "layer")
    return replace(names, **{field: prefix + getattr(names, field) for field in outer})


LLAMA: Final = Names()
GEMMA: Final = replace(LLAMA, mlp_norm="pre_feedforward_layernorm")
PHI3: Final = replace(LLAMA, query_key_value=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))
MIXTRAL: Final = replace(
    LLAMA,
    router="block_sparse_moe.gate",
    expert_gate_up=("block_sparse_moe.experts.{expert}.w1", "block_sparse_moe.experts.{expert}.w3"),
    expert_down="block_sparse_moe.experts.{expert}.w2",
)
GGUF: Final = Names(
    embedding="token_embd",
    final_norm="output_norm",
    head="output",
    layer="blk.{layer}.",
    attention_norm="attn_norm",
    query_key_value=("attn_q", "attn_k", "attn_v"),
    query_norm="attn_q_norm",
    key_norm="attn_k_norm",
    attention_out="attn_output",
    attention_post_norm="post_attention_norm",
    mlp_norm="ffn_norm",
    gate_up=("ffn_gate", "ffn_up"),
    down="ffn_down",
    mlp_post_norm="post_ffw_norm",
    router="ffn_gate_inp",
    expert_gate_up=("ffn_gate_exps", "ffn_up_exps"),
    expert_down="ffn_down_exps",
)
GGUF_LLAMA: Final = replace(GGUF, interleaved=True)
GGUF_PHI3: Final = replace(GGUF, query_key_value=("attn_qkv",), gate_up=("ffn_up",))
GGUF_ROPE_FACTORS: Final = "rope_freqs.weight"
GGUF_REFUSED: Final = frozenset({"rope_factors_long.weight", "rope_factors_short.weight"})


@dataclass(frozen=True)
class Matrix:
    """The weight of a linear in the files, or a piece of one that several make up.

    name     of the tensor without its suffix: quantized formats have suffixes of their own
    expert   its place in a tensor of several experts; None: it is the whole tensor
    experts  how many that tensor has
    heads    heads whose rows are interleaved; None: the rows are in order
    """

    name: str
    out_features: int
    in_features: int
    bias: bool = False
    expert: int | None = None
    experts: int = 1
    heads: int | None = None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Return the shape of the tensor in the files."""
        own = (self.out_features, self.in_features)
        return own if self.expert is None else (self.experts, *own)


@dataclass(frozen=True)
class Mlp:
    """The linears of one MLP, or of one expert."""

    gate_up: tuple[Matrix, ...]
    down: Matrix


@dataclass(frozen=True)
class LayerTensors:
    """Everything that one layer has in the files.

    norms   by their field in Names: name and width
    router  [experts, hidden_size]; None: there is one MLP, and no choice
    """

    query_key_value: tuple[Matrix, ...]
    attention_out: Matrix
    router: Matrix | None
    mlps: tuple[Mlp, ...]
    norms: dict[str, tuple[str, int]]

    def matrices(self) -> Iterator[Matrix]:
        """Yield every linear of the layer, the router aside."""
        yield from self.query_key_value
        yield self.attention_out
        for mlp in self.mlps:
            yield from mlp.gate_up
            yield mlp.down


def layer_tensors(names: Names, shape: ModelShape, layer: int) -> LayerTensors:
    """Return the tensors of one layer."""
    prefix = names.layer.format(layer=layer)
    hidden = shape.hidden_size
    norms = {"attention_norm": hidden, "mlp_norm": hidden}
    if shape.qk_norm:
        norms |= {"query_norm": shape.head_dim, "key_norm": shape.head_dim}
    if shape.post_norms:
        norms |= {"attention_post_norm": hidden, "mlp_post_norm": hidden}
    chooses = shape.has_experts(layer)
    router = Matrix(prefix + names.router, shape.experts or 0, hidden) if chooses else None
    return LayerTensors(
        query_key_value=_query_key_value(names, shape, prefix),
        attention_out=Matrix(
            prefix + names.attention_out,
            hidden,
            shape.query_heads * shape.head_dim,
            bias=shape.out_bias,
        ),
        router=router,
        mlps=_experts(names, shape, prefix) if chooses else (_dense_mlp(names, shape, prefix),),
        norms={field: (prefix + getattr(names, field), width) for field, width in norms.items()},
    )


def expected_shapes(names: Names, shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Return every tensor that an unquantized model must have, by its whole name."""
    embedding = (shape.vocabulary, shape.hidden_size)
    expected: dict[str, tuple[int, ...]] = {
        weight(names.embedding): embedding,
        weight(names.final_norm): (shape.hidden_size,),
    }
    if not shape.tied_embeddings:
        expected[weight(names.head)] = embedding
    for layer in range(shape.layers):
        tensors = layer_tensors(names, shape, layer)
        matrices = [*tensors.matrices(), *((tensors.router,) if tensors.router else ())]
        for matrix in matrices:
            expected[weight(matrix.name)] = matrix.stored_shape
            if matrix.bias:
                expected[bias(matrix.name)] = (matrix.out_features,)
        for name, width in tensors.norms.values():
            expected[weight(name)] = (width,)
    return expected


def linear_weights(names: Names, shape: ModelShape) -> frozenset[str]:
    """Return the whole names of the weights that may be quantized."""
    return frozenset(
        weight(matrix.name)
        for layer in range(shape.layers)
        for matrix in layer_tensors(names, shape, layer).matrices()
    )


def weight(name: str) -> str:
    """Return the whole name of a weight."""
    return name + ".weight"


def bias(name: str) -> str:
    """Return the whole name of a bias."""
    return name + ".bias"


def _query_key_value(names: Names, shape: ModelShape, prefix: str) -> tuple[Matrix, ...]:
    heads: tuple[int, ...] = (shape.query_heads, shape.kv_heads, shape.kv_heads)
    if len(names.query_key_value) == 1:
        heads = (sum(heads),)
    ordered: tuple[int | None, ...] = (None,) * len(heads)
    interleaved = (shape.query_heads, shape.kv_heads, None) if names.interleaved else ordered
    return tuple(
        Matrix(
            prefix + name,
            count * shape.head_dim,
            shape.hidden_size,
            bias=shape.qkv_bias,
            heads=pairs,
        )
        for name, count, pairs in zip(names.query_key_value, heads, interleaved, strict=True)
    )


def _dense_mlp(names: Names, shape: ModelShape, prefix: str) -> Mlp:
    width, hidden = shape.intermediate_size, shape.hidden_size
    rows = 2 * width // len(names.gate_up)
    return Mlp(
        gate_up=tuple(Matrix(prefix + name, rows, hidden) for name in names.gate_up),
        down=Matrix(prefix + names.down, hidden, width),
    )


def _experts(names: Names, shape: ModelShape, prefix: str) -> tuple[Mlp, ...]:
    count, width, hidden = shape.experts or 0, shape.expert_size or 0, shape.hidden_size

    def matrix(name: str, expert: int, rows: int, columns: int) -> Matrix:
        if "{expert}" in name:
            return Matrix(prefix + name.format(expert=expert), rows, columns)
        return Matrix(prefix + name, rows, columns, expert=expert, experts=count)

    rows = 2 * width // len(names.expert_gate_up)
    return tuple(
        Mlp(
            gate_up=tuple(matrix(name, e, rows, hidden) for name in names.expert_gate_up),
            down=matrix(names.expert_down, e, hidden, width),
        )
        for e in range(count)
    )
