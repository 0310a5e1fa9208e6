"""`llm-engine inspect`: what a model is, from its configuration and weight headers alone."""

from llm_engine.contract.inspection import Inspection, ModelRefused
from llm_engine.contract.quantization import Quantization
from llm_engine.weights.checkpoint import open_checkpoint
from llm_engine.weights.source import source_headers


def inspect(model: str) -> Inspection:
    """Report a model's shape, or why it cannot be served. Loads no weights and no torch."""
    try:
        with source_headers(model) as path:
            checkpoint = open_checkpoint(path)
            return Inspection(
                shape=checkpoint.settings.shape,
                file_bytes=checkpoint.file_bytes,
                file_format=checkpoint.file_format,
                file_dtype=checkpoint.file_dtype,
            )
    except ModelRefused as refusal:
        return Inspection(failure=refusal.failure)


def described(report: Inspection) -> list[str]:
    """Return what a person wants to know of a model, one fact a line."""
    shape, gib = report.shape, 1 << 30
    if shape is None:
        return []
    heads = f"{shape.query_heads} query, {shape.kv_heads} key-value, {shape.head_dim} wide"
    weights = ", ".join(
        f"{shape.weight_bytes(quantization, 2) / gib:.2f} GiB {quantization}"
        for quantization in Quantization
    )
    return [
        f"architecture  {shape.architecture}, {shape.layers} layers of {shape.hidden_size}",
        f"heads         {heads}",
        f"parameters    {shape.parameters:,}",
        f"context       {shape.context_tokens:,} tokens",
        f"files         {report.file_format} {report.file_dtype}, {report.file_bytes or 0:,} bytes",
        f"weights       {weights} (in bf16)",
        f"keys, values  {shape.kv_bytes_per_token(2):,} bytes a token (in bf16)",
    ]
