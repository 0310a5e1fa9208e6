"""Turn what the user calls a model into files on this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights import bucket, hub
from llm_engine.weights.progress import OnProgress, ProgressLog
from llm_engine.weights.remote import Remote, fetch_model, remote_headers

_REMOTES: Final[dict[str, Callable[[str], Remote]]] = {
    hub.SCHEME: hub.HubModel.parse,
    bucket.SCHEME: bucket.BucketModel.parse,
}


def resolve_source(model: str, on_progress: OnProgress | None = None) -> Path:
    """Return the folder or file that holds the whole model, fetching it where that is needed.

    on_progress  told each percent that comes; None: every tenth is logged
    """
    remote = _remote(model)
    return Path(model) if remote is None else fetch_model(remote, on_progress or ProgressLog())


@contextmanager
def source_headers(model: str) -> Iterator[Path]:
    """Yield a folder or file with the model's configuration and weight headers at least."""
    remote = _remote(model)
    if remote is None:
        yield Path(model)
    else:
        with remote_headers(remote) as path:
            yield path


def _remote(model: str) -> Remote | None:
    """Return the model at its source; None for a path on this machine."""
    scheme, separator, _ = model.partition("://")
    if not separator:
        return None
    parse = _REMOTES.get(scheme + separator)
    if parse is None:
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{model}: this engine reads hf://owner/name, s3://bucket/folder, a folder, or a "
            ".gguf file",
        )
    return parse(model)
