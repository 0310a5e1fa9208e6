"""Build a decoder from a checkpoint: convert, fuse and quantize tensor by tensor."""

import torch
from torch import Tensor

from llm_engine.contract.quantization import Quantization
from llm_engine.model.decoder import Decoder, Layer
from llm_engine.model.rotary import rotary_table
from llm_engine.quantization.linear import Linear, make_linear
from llm_engine.quantization.plain import PlainLinear
from llm_engine.weights import names
from llm_engine.weights.checkpoint import Checkpoint
from llm_engine.weights.tensors import TensorReader


def load_decoder(
    checkpoint: Checkpoint,
    quantization: Quantization,
    dtype: torch.dtype,
    device: torch.device,
    max_context_tokens: int,
) -> Decoder:
    """Load all weights; never holds more than one layer twice."""
    reader = TensorReader(checkpoint)
    settings = checkpoint.settings

    def weight(name: str) -> Tensor:
        # A copy even where nothing changes: memory of our own, not pages of a file under pressure.
        return reader.read(name).to(device=device, dtype=dtype, copy=True)

    def linear(layer: int, *parts: str) -> Linear:
        fused = torch.cat([reader.read(names.layer_tensor(layer, part)) for part in parts])
        return make_linear(fused.to(device=device, dtype=dtype), quantization)

    def load_layer(layer: int) -> Layer:
        query, key, value, out, gate, up, down = names.LINEARS
        attention_norm, feed_forward_norm = names.NORMS
        return Layer(
            attention_norm=weight(names.layer_tensor(layer, attention_norm)),
            query_key_value=linear(layer, query, key, value),
            attention_out=linear(layer, out),
            feed_forward_norm=weight(names.layer_tensor(layer, feed_forward_norm)),
            gate_up=linear(layer, gate, up),
            down=linear(layer, down),
        )

    embedding = weight(names.EMBEDDING)
    head = embedding if settings.shape.tied_embeddings else weight(names.HEAD)
    cosines, sines = rotary_table(settings, max_context_tokens, reader.rope_factors())
    # The first half of a rotated head is x1 cos - x2 sin: the sign goes into the table.
    sines[:, : settings.shape.head_dim // 2].neg_()
    return Decoder(
        settings=settings,
        embedding=embedding,
        layers=tuple(load_layer(layer) for layer in range(settings.shape.layers)),
        final_norm=weight(names.FINAL_NORM),
        head=PlainLinear(head),
        cosines=cosines[:, None].to(device=device, dtype=dtype),
        sines=sines[:, None].to(device=device, dtype=dtype),
    )
