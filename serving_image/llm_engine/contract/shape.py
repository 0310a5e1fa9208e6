"""The shape of a decoder model, and the bytes that follow from it.

One formula here serves the planner, the engine's block pool and `llm-engine inspect`.
"""

from dataclasses import dataclass
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_engine.contract.quantization import Quantization, linear_bytes, stored_linear_bytes

FP32_BYTES: Final = 4


@dataclass(frozen=True)
class LinearCount:
    """Linears of one size, and how many of them the model has."""

    out_features: int
    in_features: int
    count: int

    @property
    def elements(self) -> int:
        """Count the weights of all of them."""
        return self.out_features * self.in_features * self.count


class ModelShape(BaseModel):
    """Everything about a model that decides memory and arithmetic; nothing about its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(description="Family of the decoder.", examples=["llama"])
    layers: int = Field(gt=0, le=10_000, description="Decoder layers.", examples=[30])
    hidden_size: int = Field(
        gt=0, le=1 << 20, description="Width of the residual stream.", examples=[576]
    )
    intermediate_size: int = Field(
        gt=0, le=1 << 20, description="Width within the MLP.", examples=[1536]
    )
    query_heads: int = Field(gt=0, le=1 << 16, description="Attention heads.", examples=[9])
    kv_heads: int = Field(
        gt=0,
        le=1 << 16,
        description="Key and value heads; fewer than query heads is grouped-query attention.",
        examples=[3],
    )
    head_dim: int = Field(gt=0, le=1 << 16, description="Width of one head.", examples=[64])
    vocabulary: int = Field(
        gt=0, le=1 << 24, description="Rows of the embedding.", examples=[49152]
    )
    context_tokens: int = Field(
        gt=0, description="Longest context the model was trained for.", examples=[8192]
    )
    tied_embeddings: bool = Field(
        description="The head shares the embedding's weights.", examples=[True]
    )
    window_tokens: int | None = Field(
        default=None,
        gt=0,
        description="Newest tokens that a sliding-window layer sees.",
        examples=[4096],
    )
    windowed_layers: tuple[int, ...] = Field(
        default=(),
        description="Layers with that window; the others see everything.",
        examples=[[0, 2, 4]],
    )
    qkv_bias: bool = Field(
        default=False, description="Query, key and value have biases.", examples=[False]
    )
    out_bias: bool = Field(
        default=False, description="The attention's output has a bias.", examples=[False]
    )
    qk_norm: bool = Field(
        default=False, description="Queries and keys are normed head by head.", examples=[False]
    )
    post_norms: bool = Field(
        default=False, description="Attention and MLP are normed after as before.", examples=[False]
    )
    fp32_norms: bool = Field(
        default=False,
        description="Norms keep their weights in fp32, whatever else is computed in.",
        examples=[False],
    )
    experts: int | None = Field(
        default=None, gt=0, description="MLPs of a layer to choose from.", examples=[8]
    )
    experts_per_token: int | None = Field(
        default=None, gt=0, description="Experts that a token goes through.", examples=[2]
    )
    expert_size: int | None = Field(
        default=None, gt=0, description="Width within an expert.", examples=[768]
    )
    dense_layers: tuple[int, ...] = Field(
        default=(),
        description="Layers with one MLP, where the others have experts.",
        examples=[[0]],
    )

    stored_quantization: Quantization | None = Field(
        default=None,
        description="How the checkpoint's linears are quantized already, and are kept.",
        examples=["Int4"],
    )
    stored_group_size: int | None = Field(
        default=None,
        gt=0,
        description="Inputs that share a scale in such a checkpoint; absent: all of a row do.",
        examples=[128],
    )

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        if (self.window_tokens is None) != (not self.windowed_layers):
            raise ValueError("window_tokens and windowed_layers come together or not at all")
        self._check_layers("windowed_layers", self.windowed_layers)
        return self

    @model_validator(mode="after")
    def _check_experts(self) -> Self:
        given = {self.experts is None, self.experts_per_token is None, self.expert_size is None}
        if len(given) == 2:
            raise ValueError("experts, experts_per_token and expert_size come together")
        if (self.experts_per_token or 0) > (self.experts or 0):
            raise ValueError(f"experts_per_token must be at most the {self.experts} experts")
        self._check_layers("dense_layers", self.dense_layers)
        return self

    def _check_layers(self, name: str, layers: tuple[int, ...]) -> None:
        if any(not 0 <= layer < self.layers for layer in layers):
            raise ValueError(f"{name} must be 0 to {self.layers - 1}")

    @property
    def expert_layers(self) -> int:
        """Count the layers that choose among experts."""
        return 0 if self.experts is None else self.layers - len(set(self.dense_layers))

    def has_experts(self, layer: int) -> bool:
        """Tell whether this layer chooses among experts."""
        return self.experts is not None and layer not in self.dense_layers

    @property
    def linears(self) -> tuple[LinearCount, ...]:
        """Every linear of the layers that may be quantized."""
        query = self.query_heads * self.head_dim
        key_value = self.kv_heads * self.head_dim
        hidden = self.hidden_size
        dense = self.layers - self.expert_layers
        experts = self.expert_layers * (self.experts or 0)
        expert_size = self.expert_size or 0
        every = (
            LinearCount(query, hidden, self.layers),
            LinearCount(key_value, hidden, 2 * self.layers),
            LinearCount(hidden, query, self.layers),
            LinearCount(self.intermediate_size, hidden, 2 * dense),
            LinearCount(hidden, self.intermediate_size, dense),
            LinearCount(expert_size, hidden, 2 * experts),
            LinearCount(hidden, expert_size, experts),
        )
        return tuple(linear for linear in every if linear.count)

    @property
    def parameters(self) -> int:
        """Count of all weights: embedding, head where untied, linears, biases and norms."""
        return sum(linear.elements for linear in self.linears) + self._kept + self._norms

    @property
    def active_parameters(self) -> int:
        """Count of the weights that one token is multiplied with: not those of idle experts."""
        if self.experts is None or self.experts_per_token is None or self.expert_size is None:
            return self.parameters
        expert = 3 * self.hidden_size * self.expert_size
        idle = self.experts - self.experts_per_token
        return self.parameters - self.expert_layers * idle * expert

    @property
    def _kept(self) -> int:
        """Count of the weights that stay in the compute dtype, whatever the quantization."""
        matrices = 1 if self.tied_embeddings else 2
        qkv_bias = (self.query_heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        out_bias = self.hidden_size if self.out_bias else 0
        routers = self.expert_layers * (self.experts or 0) * self.hidden_size
        embeddings = matrices * self.vocabulary * self.hidden_size
        return embeddings + routers + self.layers * (qkv_bias + out_bias)

    @property
    def _norms(self) -> int:
        per_layer = (4 if self.post_norms else 2) * self.hidden_size
        per_layer += 2 * self.head_dim if self.qk_norm else 0
        return self.layers * per_layer + self.hidden_size

    def linear_bytes(self, quantization: Quantization, dtype_bytes: int) -> int:
        """Return the bytes of all linears of the layers, biases left out.

        A checkpoint that is quantized already stays so, whatever the quantization asked for.
        """
        stored = self.stored_quantization
        return sum(
            linear.count
            * (
                linear_bytes(quantization, linear.out_features, linear.in_features, dtype_bytes)
                if stored is None
                else stored_linear_bytes(
                    stored, linear.out_features, linear.in_features, self.stored_group_size
                )
            )
            for linear in self.linears
        )

    def weight_bytes(self, quantization: Quantization, dtype_bytes: int) -> int:
        """Return the bytes of all weights in memory.

        Embedding, head, routers, biases and norms are never quantized.

        dtype_bytes  bytes per element of the compute dtype: 2 for bf16, 4 for fp32
        """
        linears = self.linear_bytes(quantization, dtype_bytes)
        norm_bytes = FP32_BYTES if self.fp32_norms else dtype_bytes
        return linears + self._kept * dtype_bytes + self._norms * norm_bytes

    def kv_bytes_per_token(self, dtype_bytes: int) -> int:
        """Return the bytes of keys and values that one token keeps, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype_bytes
