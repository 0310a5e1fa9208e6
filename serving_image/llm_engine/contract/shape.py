"""The shape of a decoder model, and the bytes that follow from it.

One formula here serves the planner, the engine's block pool and `llm-engine inspect`.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_engine.contract.quantization import Quantization, linear_bytes


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

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        if (self.window_tokens is None) != (not self.windowed_layers):
            raise ValueError("window_tokens and windowed_layers come together or not at all")
        if any(not 0 <= layer < self.layers for layer in self.windowed_layers):
            raise ValueError(f"windowed_layers must be 0 to {self.layers - 1}")
        return self

    @property
    def linear_shapes(self) -> tuple[tuple[int, int], ...]:
        """(out_features, in_features) of every linear of one layer: q, k, v, o, gate, up, down."""
        query = self.query_heads * self.head_dim
        key_value = self.kv_heads * self.head_dim
        return (
            (query, self.hidden_size),
            (key_value, self.hidden_size),
            (key_value, self.hidden_size),
            (self.hidden_size, query),
            (self.intermediate_size, self.hidden_size),
            (self.intermediate_size, self.hidden_size),
            (self.hidden_size, self.intermediate_size),
        )

    @property
    def parameters(self) -> int:
        """Count of all weights: embedding, head where untied, linears and norms."""
        linear = self.layers * sum(out * into for out, into in self.linear_shapes)
        norms = (2 * self.layers + 1) * self.hidden_size
        head = 0 if self.tied_embeddings else self.vocabulary * self.hidden_size
        return linear + norms + head + self.vocabulary * self.hidden_size

    def weight_bytes(self, quantization: Quantization, dtype_bytes: int) -> int:
        """Return the bytes of all weights in memory.

        Embedding, head and norms stay in the compute dtype, whatever the quantization.

        dtype_bytes  bytes per element of the compute dtype: 2 for bf16, 4 for fp32
        """
        linear = self.layers * sum(
            linear_bytes(quantization, out, into, dtype_bytes) for out, into in self.linear_shapes
        )
        matrices = 1 if self.tied_embeddings else 2
        norms = (2 * self.layers + 1) * self.hidden_size
        return linear + (matrices * self.vocabulary * self.hidden_size + norms) * dtype_bytes

    def kv_bytes_per_token(self, dtype_bytes: int) -> int:
        """Return the bytes of keys and values that one token keeps, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype_bytes
