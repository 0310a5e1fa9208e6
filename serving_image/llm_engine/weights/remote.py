"""Models that lie elsewhere: which files serving needs, and how their headers are read from afar.

What a hub and a bucket have in common; neither is known here.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights import gguf_header
from llm_engine.weights.progress import OnProgress
from llm_engine.weights.safetensors_header import INDEX_NAME, MOST_HEADER_BYTES, SINGLE_NAME

ANSWER_WITHIN_S: Final = 8.0
"""A source that says nothing for so long is unreachable; a condition should name it within 15 s."""
SAFETENSORS_FIRST_BYTES: Final = 1 << 20

_CONFIGURATION: Final = ("config.json", "generation_config.json", INDEX_NAME)
_TEXT: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_SHARDS: Final = "model-*.safetensors"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a model.

    name    path below the model, with slashes
    sha256  of its content in hexadecimal, where the source knows it
    etag    names this version of the file, where the source has such names
    """

    name: str
    size_bytes: int
    sha256: str | None = None
    etag: str | None = None


class Remote(Protocol):
    """A model at a source. Every method raises ModelRefused where the source will not do.

    file  the one file that is meant; None: the whole folder
    """

    @property
    def file(self) -> str | None:
        """Return the name of the one file that is meant."""
        ...

    def list_files(self) -> list[RemoteFile]:
        """Return all files of the model, wanted or not."""
        ...

    def read_beginning(self, name: str, count: int) -> bytes:
        """Return the first `count` bytes of a file, or all of a shorter one."""
        ...

    def fetch(self, files: Sequence[RemoteFile], on_progress: OnProgress) -> Path:
        """Fetch files that are not here yet, checked; return the folder that holds them."""
        ...


def choose_files(remote: Remote, present: Sequence[str]) -> list[str]:
    """Return the files to fetch among those present: one format, and never a pickle."""
    if remote.file is not None:
        if remote.file not in present:
            raise not_found(remote, f"has no file {remote.file}")
        return [remote.file]
    weights = [name for name in present if fnmatchcase(name, _SHARDS)]
    if SINGLE_NAME in present or (INDEX_NAME in present and weights):
        weights = weights if INDEX_NAME in present else [SINGLE_NAME]
        return [name for name in (*_CONFIGURATION, *_TEXT) if name in present] + weights
    ggufs = [name for name in present if name.endswith(".gguf")]
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise not_found(remote, f"has several .gguf files; name one of {', '.join(ggufs[:8])}")
    raise not_found(remote, f"has neither {SINGLE_NAME} nor {INDEX_NAME} nor a .gguf file")


def fetch_model(remote: Remote, on_progress: OnProgress) -> Path:
    """Fetch what serving needs, and return the folder or file."""
    files = {file.name: file for file in remote.list_files()}
    chosen = choose_files(remote, list(files))
    folder = remote.fetch([files[name] for name in chosen], on_progress)
    return folder / chosen[0] if chosen[0].endswith(".gguf") else folder


@contextmanager
def remote_headers(remote: Remote) -> Iterator[Path]:
    """Fetch configuration and weight headers only, and yield a folder or file that holds them.

    Weight files have their full size and no content after the header: they are holes on disk, so
    whoever reads headers finds all as it would be.
    """
    with TemporaryDirectory(prefix="llm-engine-") as name:
        folder = Path(name)
        sizes = {file.name: file.size_bytes for file in remote.list_files()}
        files = choose_files(remote, list(sizes))
        for file in files:
            if file not in _TEXT:
                _fetch_beginning(remote, file, sizes[file], folder / Path(file).name)
        yield folder / Path(files[0]).name if files[0].endswith(".gguf") else folder


def _fetch_beginning(remote: Remote, name: str, size: int, path: Path) -> None:
    """Write a file of this size that begins as the remote one, as far as its header goes."""
    wanted = size
    if name.endswith(".gguf"):
        wanted = gguf_header.MOST_HEADER_BYTES
    elif name.endswith(".safetensors"):
        wanted = SAFETENSORS_FIRST_BYTES
    content = remote.read_beginning(name, min(wanted, size))
    if name.endswith(".safetensors"):
        header = 8 + min(int.from_bytes(content[:8], "little"), MOST_HEADER_BYTES)
        if len(content) < min(header, size):
            content = remote.read_beginning(name, min(header, size))
    with path.open("wb") as file:
        file.write(content)
        file.truncate(max(size, len(content)))


def cache_folder() -> Path:
    """Return where fetched models are kept: LLM_ENGINE_CACHE, else below the user's home."""
    named = os.environ.get("LLM_ENGINE_CACHE")  # noqa: TID251 (as HF_HOME is read, at the edge)
    return Path(named) if named else Path.home() / ".cache" / "llm-engine"


def check_sha256(path: Path, wanted: str, name: str) -> None:
    """Refuse and delete a file whose content is not what its source promised for `name`."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        path.unlink()
        raise ModelRefused(
            FailureReason.INVALID_MODEL,
            f"{name} arrived with sha256 {found}, and its source promises {wanted}; it was "
            "deleted: try again, and check a proxy or mirror in between",
        )


def not_found(remote: Remote, what: str) -> ModelRefused:
    """Return a refusal that begins with the model's name."""
    return ModelRefused(FailureReason.MODEL_NOT_FOUND, f"{remote} {what}")
