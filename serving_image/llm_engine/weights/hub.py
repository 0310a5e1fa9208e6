"""Models from a Hugging Face hub: `hf://owner/name[@revision][/path/to/file.gguf]`.

The token is taken from HF_TOKEN and the hub from HF_ENDPOINT, both by huggingface_hub itself. A
broken connection is taken up where it broke; what was fetched whole stays in huggingface_hub's
cache, so a process that died fetches only the rest.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.progress import OnProgress, Tally
from llm_engine.weights.remote import ANSWER_WITHIN_S, RemoteFile, check_sha256, not_found

# Read when huggingface_hub is imported, which is below: with telemetry it first asks the hub for
# names of AI agents, and waits for them 3 s at a hub that does not answer.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # noqa: TID251

SCHEME: Final = "hf://"
PARALLEL_FILES: Final = 4
_OWN_DISK: Final = (errno.ENOSPC, errno.EROFS, errno.EACCES)
_CHECKED: Final = "checked"
"""Folder beside huggingface_hub's blobs: an empty file named after each sha256 that was checked."""


@dataclass(frozen=True)
class HubModel:
    """One model on a hub; None is the default branch, and no file in particular."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{at}" + (f"/{self.file}" if self.file else "")

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse `hf://owner/name[@revision][/path/to/file.gguf]`; a revision's own slash is %2F."""
        owner, _, rest = uri.removeprefix(SCHEME).partition("/")
        name, _, file = rest.partition("/")
        name, _, revision = name.partition("@")
        if not owner or not name or (file and not file.endswith(".gguf")):
            raise ModelRefused(
                FailureReason.MODEL_NOT_FOUND,
                f"{uri} names no model; expected {SCHEME}owner/name, with @revision or "
                "/path/to/file.gguf where needed",
            )
        return cls(f"{owner}/{name}", unquote(revision) or None, file or None)

    def list_files(self) -> list[RemoteFile]:
        """Return all files of the model."""
        with _named_failures(self):
            siblings = self._info().siblings or []
        return [
            RemoteFile(item.rfilename, item.size or 0, item.lfs.sha256 if item.lfs else None)
            for item in siblings
        ]

    def read_beginning(self, name: str, count: int) -> bytes:
        """Read the first bytes of a file; a server that ignores ranges is cut off."""
        with _named_failures(self):
            return self._read(name, count) if count else b""

    def fetch(self, files: Sequence[RemoteFile], on_progress: OnProgress) -> Path:
        """Fetch files into huggingface_hub's cache; one commit, whatever its branch does."""
        from huggingface_hub import hf_hub_download

        tally = Tally(sum(file.size_bytes for file in files), on_progress)
        with _named_failures(self):
            commit = self._info().sha

            def fetch_file(file: RemoteFile) -> Path:
                told = _Told(tally)
                path = Path(
                    hf_hub_download(
                        self.repository,
                        file.name,
                        revision=commit,
                        etag_timeout=ANSWER_WITHIN_S,
                        tqdm_class=told.bar,
                    )
                )
                _check_once(path, file)
                tally.add(file.size_bytes - told.bytes)  # what was here already
                return path.parents[file.name.count("/")]

            with ThreadPoolExecutor(PARALLEL_FILES) as pool:
                folders = list(pool.map(fetch_file, files))
        return folders[0]

    def _info(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi().model_info(
            self.repository, revision=self.revision, files_metadata=True, timeout=ANSWER_WITHIN_S
        )

    def _read(self, name: str, count: int) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        url = hf_hub_url(self.repository, name, revision=self.revision)
        headers = {
            **build_hf_headers(),
            "Range": f"bytes=0-{count - 1}",
            "Accept-Encoding": "identity",
        }
        content = bytearray()
        with get_session().stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=ANSWER_WITHIN_S
        ) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            for piece in response.iter_bytes():
                content += piece
                if len(content) >= count:
                    break
        return bytes(content[:count])


class _Told:
    """Counts the bytes that huggingface_hub tells a progress bar about one file."""

    def __init__(self, tally: Tally) -> None:
        self.bytes = 0
        self._tally = tally

    def add(self, count: int) -> None:
        self.bytes += count
        self._tally.add(count)

    @property
    def bar(self) -> Any:
        """Return a class that looks like tqdm, draws nothing and passes on what it is told."""
        from huggingface_hub.utils.tqdm import silent_tqdm

        told = self

        class Bar(silent_tqdm):
            def update(self, n: float | None = 1) -> None:
                told.add(int(n or 0))

        return Bar


def _check_once(path: Path, file: RemoteFile) -> None:
    """Compare a file with its sha256, unless that was done before: 15 GB take many seconds."""
    if file.sha256 is None:
        return
    blob = path.resolve()
    mark = blob.parent.parent / _CHECKED / file.sha256
    if mark.exists() and blob.stat().st_size == file.size_bytes:
        return
    try:
        check_sha256(blob, file.sha256, file.name)
    except ModelRefused:
        path.unlink(missing_ok=True)
        raise
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


@contextmanager
def _named_failures(model: HubModel) -> Iterator[None]:
    """Turn huggingface_hub's many exceptions into ours; a full disk stays what it is."""
    from huggingface_hub import errors

    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        # "Not here, and the hub did not give it": why it did not is what matters.
        wrapped = isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__
        cause = wrapped or error
        if isinstance(cause, OSError) and cause.errno in _OWN_DISK:
            raise
        raise _named(model, cause) from error


def _named(model: HubModel, error: BaseException) -> ModelRefused:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return ModelRefused(
            FailureReason.ACCESS_DENIED,
            f"{model} is gated: accept its terms on the hub and give a token that may read it "
            "(secretRef, or HF_TOKEN)",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return not_found(
            model, "does not exist, or is private and the token (secretRef, HF_TOKEN) may not read"
        )
    if isinstance(error, (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)):
        return not_found(model, f"lacks this revision or file ({_first_line(error)})")
    if isinstance(error, errors.HFValidationError):
        return not_found(model, f"is no name of a model ({_first_line(error)})")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return ModelRefused(
            FailureReason.ACCESS_DENIED,
            f"{model}: {constants.ENDPOINT} answers {status}; give a token that may read it "
            "(secretRef, or HF_TOKEN)",
        )
    return ModelRefused(
        FailureReason.SOURCE_UNREACHABLE,
        f"{model} could not be read from {constants.ENDPOINT} ({_first_line(error)}); check "
        "the network, a proxy, or HF_ENDPOINT",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
