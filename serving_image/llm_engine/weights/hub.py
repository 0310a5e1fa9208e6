"""Models from a Hugging Face hub: `hf://owner/name[@revision][/path/to/file.gguf]`.

The token is taken from HF_TOKEN and the hub from HF_ENDPOINT, both by huggingface_hub itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import unquote

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.safetensors_header import INDEX_NAME, MOST_HEADER_BYTES, SINGLE_NAME

SCHEME: Final = "hf://"
ANSWER_WITHIN_S: Final = 10.0
"""A hub that says nothing for so long is unreachable; a condition should name it within 15 s."""
GGUF_HEADER_BYTES: Final = 32 << 20
"""More than any GGUF header: the largest vocabularies (256,000 words) take 14 MB."""
SAFETENSORS_FIRST_BYTES: Final = 1 << 20

_CONFIGURATION: Final = ("config.json", "generation_config.json", INDEX_NAME)
_TEXT: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_SHARDS: Final = "model-*.safetensors"


@dataclass(frozen=True)
class HubModel:
    """One model on a hub; None is the default branch, and no file in particular."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{at}" + (f"/{self.file}" if self.file else "")


@dataclass(frozen=True)
class _RemoteFile:
    name: str
    size: int


def parse_hub_uri(uri: str) -> HubModel:
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
    return HubModel(f"{owner}/{name}", unquote(revision) or None, file or None)


def choose_files(model: HubModel, present: Sequence[str]) -> list[str]:
    """Return the files to fetch among those present: one format, and never a pickle."""
    if model.file is not None:
        if model.file not in present:
            raise _not_found(model, f"has no file {model.file}")
        return [model.file]
    weights = [name for name in present if fnmatchcase(name, _SHARDS)]
    if SINGLE_NAME in present or (INDEX_NAME in present and weights):
        weights = weights if INDEX_NAME in present else [SINGLE_NAME]
        return [name for name in (*_CONFIGURATION, *_TEXT) if name in present] + weights
    ggufs = [name for name in present if name.endswith(".gguf")]
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise _not_found(model, f"has several .gguf files; name one of {', '.join(ggufs[:8])}")
    raise _not_found(model, f"has neither {SINGLE_NAME} nor {INDEX_NAME} nor a .gguf file")


def fetch_from_hub(uri: str) -> Path:
    """Download what serving needs into huggingface_hub's cache, and return the folder or file."""
    model = parse_hub_uri(uri)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    with _named_failures(model):
        files = choose_files(model, [file.name for file in _list_files(model)])
        folder = Path(
            snapshot_download(
                model.repository,
                revision=model.revision,
                allow_patterns=files,
                etag_timeout=ANSWER_WITHIN_S,
            )
        )
    return folder / files[0] if files[0].endswith(".gguf") else folder


@contextmanager
def headers_from_hub(uri: str) -> Iterator[Path]:
    """Fetch configuration and weight headers only, and yield a folder or file that holds them.

    Weight files have their full size and no content after the header: they are holes on disk, so
    whoever reads headers finds all as it would be.
    """
    model = parse_hub_uri(uri)
    with TemporaryDirectory(prefix="llm-engine-") as name:
        folder = Path(name)
        with _named_failures(model):
            sizes = {file.name: file.size for file in _list_files(model)}
            files = choose_files(model, list(sizes))
            for file in files:
                if file not in _TEXT:
                    _fetch_beginning(model, file, sizes[file], folder / Path(file).name)
        is_gguf = files[0].endswith(".gguf")
        yield folder / Path(files[0]).name if is_gguf else folder


def _list_files(model: HubModel) -> list[_RemoteFile]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(
        model.repository, revision=model.revision, files_metadata=True, timeout=ANSWER_WITHIN_S
    )
    return [_RemoteFile(item.rfilename, item.size or 0) for item in info.siblings or []]


def _fetch_beginning(model: HubModel, name: str, size: int, path: Path) -> None:
    """Write a file of this size that begins as the hub's does, as far as its header goes."""
    wanted = size
    if name.endswith(".gguf"):
        wanted = GGUF_HEADER_BYTES
    elif name.endswith(".safetensors"):
        wanted = SAFETENSORS_FIRST_BYTES
    content = _read_bytes(model, name, min(wanted, size))
    if name.endswith(".safetensors"):
        header = 8 + min(int.from_bytes(content[:8], "little"), MOST_HEADER_BYTES)
        if len(content) < min(header, size):
            content = _read_bytes(model, name, min(header, size))
    with path.open("wb") as file:
        file.write(content)
        file.truncate(max(size, len(content)))


def _read_bytes(model: HubModel, name: str, count: int) -> bytes:
    """Read the first bytes of a remote file; a server that ignores ranges is cut off."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    if count == 0:
        return b""
    url = hf_hub_url(model.repository, name, revision=model.revision)
    headers = {**build_hf_headers(), "Range": f"bytes=0-{count - 1}", "Accept-Encoding": "identity"}
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


@contextmanager
def _named_failures(model: HubModel) -> Iterator[None]:
    """Turn huggingface_hub's many exceptions into ours."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelRefused(
            FailureReason.ACCESS_DENIED,
            f"{model} is gated: accept its terms on the hub and give a token that may read it "
            "(secretRef, or HF_TOKEN)",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise _not_found(
            model, "does not exist, or is private and the token (secretRef, HF_TOKEN) may not read"
        ) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise _not_found(model, f"lacks this revision or file ({_first_line(error)})") from error
    except errors.HFValidationError as error:
        raise _not_found(model, f"is no name of a model ({_first_line(error)})") from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ModelRefused(
                FailureReason.ACCESS_DENIED,
                f"{model}: the hub answers {status}; give a token that may read it (secretRef, "
                "or HF_TOKEN)",
            ) from error
        if _is_full_disk(error):
            raise
        raise ModelRefused(
            FailureReason.SOURCE_UNREACHABLE,
            f"{model} could not be read from {constants.ENDPOINT} ({_first_line(error)}); check "
            "the network, a proxy, or HF_ENDPOINT",
        ) from error


def _not_found(model: HubModel, what: str) -> ModelRefused:
    return ModelRefused(FailureReason.MODEL_NOT_FOUND, f"{model} {what}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _is_full_disk(error: BaseException) -> bool:
    import errno

    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES)
