"""The forward pass of a Llama decoder over the tokens of one step."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.attention.backend import AttentionBackend, AttentionSettings
from llm_engine.model.rotary import rotate
from llm_engine.quantization.linear import Linear
from llm_engine.weights.settings import DecoderSettings


@dataclass(frozen=True)
class Layer:
    """One layer's weights; query, key and value are one linear, gate and up are another."""

    attention_norm: Tensor
    query_key_value: Linear
    attention_out: Linear
    feed_forward_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class Decoder:
    """A whole model in memory.

    cosines, sines  [positions, 1, head_dim]; see `rotary.rotate`
    """

    settings: DecoderSettings
    embedding: Tensor
    layers: tuple[Layer, ...]
    final_norm: Tensor
    head: Linear
    cosines: Tensor
    sines: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of activations."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Return where the model computes."""
        return self.embedding.device

    @property
    def attention(self) -> AttentionSettings:
        """Return how this model makes its scores."""
        shape = self.settings.shape
        return AttentionSettings(query_heads=shape.query_heads, scale=shape.head_dim**-0.5)

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights in memory; a tied head counts once."""
        norms = [self.final_norm]
        linears: list[Linear] = []
        for layer in self.layers:
            norms += [layer.attention_norm, layer.feed_forward_norm]
            linears += [layer.query_key_value, layer.attention_out, layer.gate_up, layer.down]
        if not self.settings.shape.tied_embeddings:
            linears.append(self.head)
        held = self.embedding.nbytes + sum(norm.nbytes for norm in norms)
        return held + sum(linear.weight_bytes for linear in linears)

    def logits(
        self,
        tokens: Tensor,
        positions: Tensor,
        sampled_rows: Tensor,
        attention: AttentionBackend,
        plan: Any,
    ) -> Tensor:
        """Compute one step and return logits [sampled, vocabulary] of the rows asked for.

        tokens, positions  [tokens]
        sampled_rows       [sampled]: rows whose next token is wanted
        """
        hidden = F.embedding(tokens, self.embedding)
        cosines, sines = self.cosines[positions], self.sines[positions]
        for index, layer in enumerate(self.layers):
            normed = self._norm(hidden, layer.attention_norm)
            hidden = hidden + self._attend(index, layer, normed, cosines, sines, attention, plan)
            if index == len(self.layers) - 1:
                hidden = hidden[sampled_rows]  # nobody reads the other rows any more
            normed = self._norm(hidden, layer.feed_forward_norm)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate) * up)
        return self.head(self._norm(hidden, self.final_norm))

    def _attend(
        self,
        index: int,
        layer: Layer,
        normed: Tensor,
        cosines: Tensor,
        sines: Tensor,
        attention: AttentionBackend,
        plan: Any,
    ) -> Tensor:
        shape = self.settings.shape
        heads = layer.query_key_value(normed).view(len(normed), -1, shape.head_dim)
        rotated = rotate(heads[:, : -shape.kv_heads], cosines, sines)
        queries, keys = rotated[:, : shape.query_heads], rotated[:, shape.query_heads :]
        keys_values = torch.stack((keys, heads[:, -shape.kv_heads :]), dim=1)
        seen = attention.attend(index, queries, keys_values, plan)
        return layer.attention_out(seen.flatten(1))

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self.settings.rms_eps)
