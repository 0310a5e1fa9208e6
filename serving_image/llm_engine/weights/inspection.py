"""`llm-engine inspect`: what a model is, from its configuration and weight headers alone."""

from llm_engine.contract.inspection import Inspection, ModelRefused
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
