"""The forward pass of a decoder over the tokens of one step: every family, by its settings."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.attention.backend import AttentionBackend, AttentionSettings
from llm_engine.model.feed_forward import FeedForward
from llm_engine.model.rotary import rotate
from llm_engine.quantization.linear import Linear
from llm_engine.weights.settings import DecoderSettings


@dataclass(frozen=True)
class Layer:
    """One layer's weights; query, key and value are one linear.

    Norms that a family lacks are None.

    rotation  which of the decoder's tables of rotations it uses
    """

    attention_norm: Tensor
    query_key_value: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    attention_out: Linear
    attention_post_norm: Tensor | None
    mlp_norm: Tensor
    mlp: FeedForward
    mlp_post_norm: Tensor | None
    rotation: int

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights of the layer."""
        norms = (
            self.attention_norm,
            self.query_norm,
            self.key_norm,
            self.attention_post_norm,
            self.mlp_norm,
            self.mlp_post_norm,
        )
        linears = self.query_key_value.weight_bytes + self.attention_out.weight_bytes
        return (
            linears + self.mlp.weight_bytes + sum(norm.nbytes for norm in norms if norm is not None)
        )


@dataclass(frozen=True)
class Decoder:
    """A whole model in memory.

    rotations  cosines and sines, each [positions, 1, rotary_dim]; see `rotary.rotate`
    """

    settings: DecoderSettings
    embedding: Tensor
    layers: tuple[Layer, ...]
    final_norm: Tensor
    head: Linear
    rotations: tuple[tuple[Tensor, Tensor], ...]

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
        return AttentionSettings(
            query_heads=self.settings.shape.query_heads,
            scale=self.settings.attention_scale,
            softcap=self.settings.attention_softcap,
        )

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights in memory; a tied head counts once."""
        head = 0 if self.settings.shape.tied_embeddings else self.head.weight_bytes
        outer = self.embedding.nbytes + self.final_norm.nbytes + head
        return outer + sum(layer.weight_bytes for layer in self.layers)

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
        return self.project(self.hidden(tokens, positions, sampled_rows, attention, plan))

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        wanted_rows: Tensor,
        attention: AttentionBackend,
        plan: Any,
    ) -> Tensor:
        """Compute one step and return what `project` takes, [wanted, hidden_size].

        Apart from it, since logits of many rows may not fit in memory at the same time.
        """
        hidden = self._embed(tokens)
        rotations = [(cosines[positions], sines[positions]) for cosines, sines in self.rotations]
        for index, layer in enumerate(self.layers):
            normed = self._norm(hidden, layer.attention_norm)
            queries, keys_values = self._heads(layer, normed, *rotations[layer.rotation])
            seen = attention.attend(index, queries, keys_values, plan)
            out = layer.attention_out(seen.flatten(1))
            hidden = hidden + self._optional_norm(out, layer.attention_post_norm)
            if index == len(self.layers) - 1:
                hidden = hidden[wanted_rows]  # nobody reads the other rows any more
            out = layer.mlp(self._norm(hidden, layer.mlp_norm))
            hidden = hidden + self._optional_norm(out, layer.mlp_post_norm)
        return self._norm(hidden, self.final_norm)

    def project(self, hidden: Tensor) -> Tensor:
        """Return the logits [rows, vocabulary] of what `hidden` returned."""
        logits = self.head(hidden)
        softcap = self.settings.logit_softcap
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    def _embed(self, tokens: Tensor) -> Tensor:
        hidden = F.embedding(tokens, self.embedding)
        if self.settings.embedding_scale == 1.0:
            return hidden
        # Rounded to the compute dtype, as Gemma was trained.
        return hidden * torch.tensor(self.settings.embedding_scale, dtype=self.dtype)

    def _heads(
        self, layer: Layer, normed: Tensor, cosines: Tensor, sines: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return rotated queries [tokens, heads, head_dim], and keys and values.

        keys, values  [tokens, 2, kv_heads, head_dim]
        """
        shape = self.settings.shape
        heads = layer.query_key_value(normed).view(len(normed), -1, shape.head_dim)
        turned = heads[:, : -shape.kv_heads]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries = self._norm(turned[:, : shape.query_heads], layer.query_norm)
            keys = self._norm(turned[:, shape.query_heads :], layer.key_norm)
            turned = torch.cat((queries, keys), dim=1)
        turned = rotate(turned, cosines, sines)
        queries, keys = turned[:, : shape.query_heads], turned[:, shape.query_heads :]
        return queries, torch.stack((keys, heads[:, -shape.kv_heads :]), dim=1)

    def _optional_norm(self, out: Tensor, weight: Tensor | None) -> Tensor:
        return out if weight is None else self._norm(out, weight)

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Norm the last dimension; a weight in fp32 is applied before anything is rounded."""
        exact = F.rms_norm(hidden.to(weight.dtype), weight.shape, weight, self.settings.rms_eps)
        return exact.to(hidden.dtype)
