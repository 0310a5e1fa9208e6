"""Build a decoder from a checkpoint: convert, fuse and quantize tensor by tensor."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llm_engine.contract.quantization import Quantization
from llm_engine.contract.tensor_parallel import (
    gate_up_rows,
    query_key_value_rows,
    rank_shape,
)
from llm_engine.model.decoder import Decoder, Layer
from llm_engine.model.feed_forward import ACTIVATIONS, Experts, FeedForward, GatedMlp
from llm_engine.model.rank_part import RankPart, Summed
from llm_engine.model.rotary import rotary_table
from llm_engine.quantization.linear import Linear, make_linear, quantized
from llm_engine.quantization.repack import repack
from llm_engine.quantization.weight import Weight, decoded, fuse, take_columns, take_rows
from llm_engine.weights.checkpoint import Checkpoint
from llm_engine.weights.names import LayerTensors, Matrix, Mlp, layer_tensors, weight
from llm_engine.weights.settings import DecoderSettings
from llm_engine.weights.tensors import TensorReader


def load_decoder(  # noqa: PLR0913 (what to load, into what, where, and which part of it)
    checkpoint: Checkpoint,
    quantization: Quantization,
    dtype: torch.dtype,
    device: torch.device,
    max_context_tokens: int,
    is_invariant: bool = False,
    part: RankPart | None = None,
    reader: TensorReader | None = None,
) -> Decoder:
    """Load all weights, or a rank's part of them; never holds more than one layer twice.

    is_invariant  each row of a step is to have the same bits whatever rows come with it
    reader        where weights come from; None: the checkpoint's files
    """
    reader = reader or TensorReader(checkpoint)
    settings = checkpoint.settings
    load = _Loading(settings, reader, quantization, dtype, device, is_invariant, part or RankPart())
    embedding = load.kept(weight(settings.names.embedding))
    tied = settings.shape.tied_embeddings
    return Decoder(
        settings=replace(settings, shape=rank_shape(settings.shape, load.part.rank.count)),
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
    part: RankPart

    def layer(self, index: int) -> Layer:
        """Load one layer."""
        settings = self.settings
        tensors = layer_tensors(settings.names, settings.shape, index)
        norms = {field: self.norm(name) for field, (name, _) in tensors.norms.items()}
        is_local = settings.local_rope is not None and index in settings.shape.windowed_layers
        out = self.linear(
            (tensors.attention_out,),
            columns=self.part.rank.part(tensors.attention_out.in_features),
        )
        return Layer(
            attention_norm=norms["attention_norm"],
            query_key_value=self.linear(
                tensors.query_key_value,
                rows=query_key_value_rows(settings.shape, self.part.rank),
            ),
            query_norm=norms.get("query_norm"),
            key_norm=norms.get("key_norm"),
            attention_out=self.summed(out),
            attention_post_norm=norms.get("attention_post_norm"),
            mlp_norm=norms["mlp_norm"],
            mlp=self.summed(self.feed_forward(tensors)),
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

    def linear(
        self,
        pieces: tuple[Matrix, ...],
        rows: tuple[range, ...] | None = None,
        columns: range | None = None,
        importance: Tensor | None = None,
    ) -> Linear:
        """Load one linear, whose pieces lie below each other, and keep this rank's part.

        It is quantized as a whole, so that ranks hold exactly the weights of a single one.

        rows, columns  this rank's outputs, or inputs
        importance     see `quantized`
        """
        # Piece by piece, so that the whole is never there unquantized; what a checkpoint kept in
        # different ways becomes plain when it is fused, and is quantized after all.
        read = (
            quantized(self.piece(piece), self.quantization, self.dtype, self.device, importance)
            for piece in pieces
        )
        whole = fuse(list(read), self.dtype, self.device)
        kept = quantized(whole, self.quantization, importance=importance)
        biases = [bias for piece in pieces if (bias := self.reader.bias(piece)) is not None]
        bias = torch.cat(biases).to(device=self.device, dtype=self.dtype) if biases else None
        rank = self.part.rank
        if rank.count > 1 and rows is not None:
            own = torch.tensor([row for part in rows for row in part], device=self.device)
            kept = take_rows(kept, own)
            bias = None if bias is None else bias[own]
        elif rank.count > 1 and columns is not None:
            kept = take_columns(kept, columns)
            bias = bias if rank.index == 0 else None  # a sum has it once
        return make_linear(kept, Quantization.NONE, bias, is_invariant=self.is_invariant)

    def piece(self, matrix: Matrix) -> Weight:
        """Read a weight as the checkpoint has it, quantized or not."""
        tensors = self.reader.stored(matrix)
        if self.settings.stored is None or not tensors:
            return self.reader.matrix(matrix)
        return repack(self.settings.stored, tensors)

    def plain(self, kept: Tensor) -> Linear:
        """Return the linear of a weight that is never quantized."""
        return make_linear(kept, Quantization.NONE, is_invariant=self.is_invariant)

    def feed_forward(self, tensors: LayerTensors) -> FeedForward:
        """Load a layer's MLP, or its experts and their router, which is never quantized."""
        mlps = tuple(self.mlp(mlp) for mlp in tensors.mlps)
        if tensors.router is None:
            return mlps[0]
        return Experts(
            router=self.plain(self.kept(weight(tensors.router.name))),
            experts=mlps,
            experts_per_token=self.settings.shape.experts_per_token or 1,
            chosen_sum_to_one=self.settings.chosen_sum_to_one,
        )

    def mlp(self, mlp: Mlp) -> FeedForward:
        """Load one MLP, or one expert."""
        width = mlp.down.in_features
        return GatedMlp(
            gate_up=self.linear(mlp.gate_up, rows=gate_up_rows(width, self.part.rank)),
            down=self.linear(
                (mlp.down,),
                columns=self.part.rank.part(width),
                importance=self.importance(mlp.gate_up),
            ),
            activation=ACTIVATIONS[self.settings.activation],
        )

    def importance(self, gate_up: tuple[Matrix, ...]) -> Tensor | None:
        """Estimate how large each of an MLP's inner channels gets: int4 must spare the largest.

        A few channels are hundreds of times as large as the rest, and it is their rows of gate and
        up that make them so: the norms of these say which, without a text to look at.
        """
        if self.quantization is not Quantization.INT4 or self.settings.stored is not None:
            return None
        norms = [
            torch.linalg.vector_norm(
                decoded(self.piece(piece)).to(self.device), dim=1, dtype=torch.float32
            )
            for piece in gate_up
        ]
        gate, up = torch.cat(norms).chunk(2)
        return (gate * up).square()

    def summed(self, part: Linear) -> Linear:
        """Add up what the ranks compute, where there are several."""
        sum_ranks = self.part.sum_ranks
        return part if sum_ranks is None else Summed(part, sum_ranks)


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
