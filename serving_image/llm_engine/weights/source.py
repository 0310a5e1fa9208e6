"""Turn what the user calls a model into files on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.hub import SCHEME, fetch_from_hub, headers_from_hub


def resolve_source(model: str) -> Path:
    """Return the folder or file that holds the whole model, fetching it where that is needed."""
    return fetch_from_hub(model) if model.startswith(SCHEME) else _local(model)


@contextmanager
def source_headers(model: str) -> Iterator[Path]:
    """Yield a folder or file with the model's configuration and weight headers at least."""
    if model.startswith(SCHEME):
        with headers_from_hub(model) as path:
            yield path
    else:
        yield _local(model)


def _local(model: str) -> Path:
    if "://" in model:
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{model}: this engine reads {SCHEME}owner/name, a folder, or a .gguf file",
        )
    return Path(model)
