"""Build a decoder from a checkpoint: convert, fuse and quantize tensor by tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llm_engine.contract.quantization import Quantization
from llm_engine.model.decoder import Decoder, Layer
from llm_engine.model.feed_forward import ACTIVATIONS, Experts, FeedForward, GatedMlp
from llm_engine.model.rotary import rotary_table
from llm_engine.quantization.linear import Linear, make_linear
from llm_engine.quantization.weight import fuse
from llm_engine.weights.checkpoint import Checkpoint
from llm_engine.weights.names import Matrix, Mlp, layer_tensors, weight
from llm_engine.weights.settings import DecoderSettings
from llm_engine.weights.tensors import TensorReader


def load_decoder(
    checkpoint: Checkpoint,
    quantization: Quantization,
    dtype: torch.dtype,
    device: torch.device,
    max_context_tokens: int,
    is_invariant: bool = False,
) -> Decoder:
    """Load all weights; never holds more than one layer twice.

    is_invariant  each row of a step is to have the same bits whatever rows come with it
    """
    reader = TensorReader(checkpoint)
    settings = checkpoint.settings
    load = _Loading(settings, reader, quantization, dtype, device, is_invariant)
    embedding = load.kept(weight(settings.names.embedding))
    tied = settings.shape.tied_embeddings
    return Decoder(
        settings=settings,
        embedding=embedding,
        layers=tuple(load.layer(layer) for layer in range(settings.shape.layers)),
        final_norm=load.norm(settings.names.final_norm),
        head=load.plain(embedding if tied else load.kept(weight(settings.names.head))),
        rotations=_rotations(settings, reader, dtype, device, max_context_tokens),
    )


@dataclass(frozen=True)
class _Loading:
    """Where weights come from, and what becomes of them."""

    settings: DecoderSettings
    reader: TensorReader
    quantization: Quantization
    dtype: torch.dtype
    device: torch.device
    is_invariant: bool

    def layer(self, index: int) -> Layer:
        """Load one layer."""
        settings = self.settings
        tensors = layer_tensors(settings.names, settings.shape, index)
        norms = {field: self.norm(name) for field, (name, _) in tensors.norms.items()}
        is_local = settings.local_rope is not None and index in settings.shape.windowed_layers
        mlps = tuple(self.mlp(mlp) for mlp in tensors.mlps)
        return Layer(
            attention_norm=norms["attention_norm"],
            query_key_value=self.linear(*tensors.query_key_value),
            query_norm=norms.get("query_norm"),
            key_norm=norms.get("key_norm"),
            attention_out=self.linear(tensors.attention_out),
            attention_post_norm=norms.get("attention_post_norm"),
            mlp_norm=norms["mlp_norm"],
            mlp=mlps[0] if tensors.router is None else self.experts(tensors.router, mlps),
            mlp_post_norm=norms.get("mlp_post_norm"),
            rotation=1 if is_local else 0,
        )

    def kept(self, name: str) -> Tensor:
        """Load a weight that is never quantized."""
        # A copy even where nothing changes: memory of our own, not pages of a file under pressure.
        return self.reader.read(name).to(device=self.device, dtype=self.dtype, copy=True)

    def norm(self, name: str) -> Tensor:
        """Load a norm's weight."""
        dtype = torch.float32 if self.settings.shape.fp32_norms else self.dtype
        stored = self.reader.read(weight(name)).float() + self.settings.norm_offset
        return stored.to(device=self.device, dtype=dtype)

    def linear(self, *pieces: Matrix) -> Linear:
        """Load one linear, whose pieces lie below each other."""
        fused = fuse([self.reader.matrix(piece) for piece in pieces], self.dtype, self.device)
        biases = [bias for piece in pieces if (bias := self.reader.bias(piece)) is not None]
        bias = torch.cat(biases).to(device=self.device, dtype=self.dtype) if biases else None
        return make_linear(fused, self.quantization, bias, is_invariant=self.is_invariant)

    def plain(self, kept: Tensor) -> Linear:
        """Return the linear of a weight that is never quantized."""
        return make_linear(kept, Quantization.NONE, is_invariant=self.is_invariant)

    def mlp(self, mlp: Mlp) -> FeedForward:
        """Load one MLP, or one expert."""
        return GatedMlp(
            gate_up=self.linear(*mlp.gate_up),
            down=self.linear(mlp.down),
            activation=ACTIVATIONS[self.settings.activation],
        )

    def experts(self, router: Matrix, experts: tuple[FeedForward, ...]) -> Experts:
        """Load the router, which stays in the compute dtype."""
        return Experts(
            router=self.plain(self.kept(weight(router.name))),
            experts=experts,
            experts_per_token=self.settings.shape.experts_per_token or 1,
            chosen_sum_to_one=self.settings.chosen_sum_to_one,
        )


def _rotations(
    settings: DecoderSettings,
    reader: TensorReader,
    dtype: torch.dtype,
    device: torch.device,
    positions: int,
) -> tuple[tuple[Tensor, Tensor], ...]:
    ropes = [settings.rope, *([settings.local_rope] if settings.local_rope else [])]
    tables = [rotary_table(rope, positions, reader.rope_factors()) for rope in ropes]
    return tuple(
        (
            cosines[:, None].to(device=device, dtype=dtype),
            sines[:, None].to(device=device, dtype=dtype),
        )
        for cosines, sines in tables
    )
