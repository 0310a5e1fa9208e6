"""Models in a bucket: `s3://bucket/folder` or `s3://bucket/folder/file.gguf`.

Endpoint, region and credentials come from the usual AWS_* variables, which obstore reads itself;
plain HTTP is spoken only where AWS_ALLOW_HTTP is true. What was fetched whole stays in the cache
folder, and so does the beginning of a file that was not.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.progress import OnProgress, Tally
from llm_engine.weights.remote import (
    ANSWER_WITHIN_S,
    RemoteFile,
    cache_folder,
    check_sha256,
    not_found,
)

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME: Final = "s3://"
SUMS_NAME: Final = "SHA256SUMS"
"""A file beside the model with its checksums, as `sha256sum` writes it; believed before ETags."""
PIECE_BYTES: Final = 8 << 20
"""One request's worth: what is lost when a connection breaks."""
PARALLEL_FILES: Final = 4
_FIRST_ANSWER_S: Final = ANSWER_WITHIN_S / 2
_PIECE_S: Final = 60.0
_MD5_DIGITS: Final = 32
# A refused listing has no type of its own, and neither has a search for credentials in vain: it
# ends at the address where a machine of AWS would give some.
_DENIALS: Final = ("status code: 401", "status code: 403", "169.254.169.254")


@dataclass(frozen=True)
class BucketModel:
    """One model in a bucket.

    folder  keys begin with it; empty for the bucket's root
    file    the one file that is meant; None: the whole folder
    """

    bucket: str
    folder: str
    file: str | None = None

    def __str__(self) -> str:
        return SCHEME + "/".join(part for part in (self.bucket, self.folder, self.file) if part)

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse `s3://bucket/folder` or `s3://bucket/folder/file.gguf`."""
        bucket, _, key = uri.removeprefix(SCHEME).rstrip("/").partition("/")
        parts = key.split("/") if key else []
        if not bucket or any(part in ("", ".", "..") for part in parts):
            raise ModelRefused(
                FailureReason.MODEL_NOT_FOUND,
                f"{uri} names no model; expected {SCHEME}bucket/folder or "
                f"{SCHEME}bucket/folder/file.gguf",
            )
        file = parts.pop() if key.endswith(".gguf") else None
        return cls(bucket, "/".join(parts), file)

    def list_files(self) -> list[RemoteFile]:
        """Return the files of the folder itself, with the checksums that are known."""
        import obstore

        with _named_failures(self):
            store = self._store(_FIRST_ANSWER_S)
            found = obstore.list_with_delimiter(store, self.folder or None)["objects"]
            sizes = {each["path"].rpartition("/")[2]: each for each in found}
            sums = _sums(self._read(store, SUMS_NAME)) if SUMS_NAME in sizes else {}
        if not sizes:
            raise not_found(self, "holds no file")
        return [
            RemoteFile(name, each["size"], sums.get(name), each["e_tag"])
            for name, each in sizes.items()
        ]

    def read_beginning(self, name: str, count: int) -> bytes:
        """Read the first bytes of a file."""
        if count == 0:
            return b""
        with _named_failures(self):
            return self._read(self._store(_FIRST_ANSWER_S), name, (0, count))

    def fetch(self, files: Sequence[RemoteFile], on_progress: OnProgress) -> Path:
        """Fetch what the cache folder lacks; a file has its name there once it is whole."""
        folder = cache_folder() / "s3" / self.bucket / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        tally = Tally(sum(file.size_bytes for file in files), on_progress)
        with _named_failures(self):
            store = self._store(_PIECE_S)
            with ThreadPoolExecutor(PARALLEL_FILES) as pool:
                list(pool.map(lambda file: self._fetch_file(store, folder, file, tally), files))
        return folder

    def _fetch_file(self, store: "S3Store", folder: Path, file: RemoteFile, tally: Tally) -> None:
        whole, mark = folder / file.name, folder / f"{file.name}.etag"
        version = f"{file.etag} {file.sha256} {file.size_bytes}"
        if whole.is_file() and mark.is_file() and mark.read_text() == version:
            tally.add(file.size_bytes)
            return
        # Named after its version: what was begun of another one is not gone on with.
        digest = hashlib.sha256(version.encode()).hexdigest()[:16]
        begun = folder / f"{file.name}.{digest}.part"
        with begun.open("ab") as out:
            have = out.tell()
            tally.add(have)
            for begin in range(have, file.size_bytes, PIECE_BYTES):
                piece = (begin, min(begin + PIECE_BYTES, file.size_bytes))
                content = self._read(store, file.name, piece, file.etag)
                out.write(content)
                tally.add(len(content))
        _check(begun, file)
        begun.replace(whole)
        mark.write_text(version)
        for outdated in folder.glob(f"{escape(file.name)}.*.part"):
            outdated.unlink()

    def _read(
        self,
        store: "S3Store",
        name: str,
        span: tuple[int, int] | None = None,
        etag: str | None = None,
    ) -> bytes:
        import obstore

        key = f"{self.folder}/{name}" if self.folder else name
        if span is None:
            return bytes(obstore.get(store, key).bytes())
        # If the object changed in between, the pieces are not of one file.
        options: obstore.GetOptions = {"range": span}
        if etag is not None:
            options["if_match"] = etag
        return bytes(obstore.get(store, key, options=options).bytes())

    def _store(self, answer_s: float) -> "S3Store":
        from obstore.store import S3Store

        # The one of obstore's variables that it does not read where options are given.
        allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")  # noqa: TID251
        return S3Store(
            self.bucket,
            client_options={
                "allow_http": allow_http,
                "connect_timeout": timedelta(seconds=_FIRST_ANSWER_S),
                "timeout": timedelta(seconds=answer_s),
            },
            retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=answer_s)},
        )


def _sums(content: bytes) -> dict[str, str]:
    """Return the sha256 of each file that the lines name."""
    words = (line.split(maxsplit=1) for line in content.decode(errors="replace").splitlines())
    return {pair[1].strip().lstrip("*"): pair[0].lower() for pair in words if len(pair) == 2}


def _check(path: Path, file: RemoteFile) -> None:
    """Compare a fetched file with what is promised, and delete it where it differs."""
    size = path.stat().st_size
    if size != file.size_bytes:
        path.unlink()
        raise ModelRefused(
            FailureReason.INVALID_MODEL,
            f"{file.name} arrived with {size} bytes; expected {file.size_bytes}; try again",
        )
    if file.sha256 is not None:
        check_sha256(path, file.sha256, file.name)
        return
    wanted = (file.etag or "").strip('"')
    if len(wanted) != _MD5_DIGITS:  # of an upload in parts: no digest of the content
        return
    with path.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != wanted:
        path.unlink()
        raise ModelRefused(
            FailureReason.INVALID_MODEL,
            f"{file.name} arrived with MD5 {found}, and its ETag is {wanted}; it was deleted: try "
            f"again, or put a {SUMS_NAME} beside the model where ETags are no MD5 (SSE-KMS)",
        )


@contextmanager
def _named_failures(model: BucketModel) -> Iterator[None]:
    """Turn obstore's exceptions into ours; those of our own disk stay what they are."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise _denied(model, error) from error
    except exceptions.PreconditionError as error:
        raise ModelRefused(
            FailureReason.SOURCE_UNREACHABLE, f"{model} changed while it was fetched; try again"
        ) from error
    except exceptions.BaseError as error:
        text = str(error)
        if "NoSuchBucket" in text:
            raise not_found(model, "is in no bucket that is there") from error
        if any(sign in text for sign in _DENIALS):
            raise _denied(model, error) from error
        raise ModelRefused(
            FailureReason.SOURCE_UNREACHABLE,
            f"{model} could not be read ({_short(error)}); check the network, AWS_ENDPOINT_URL, "
            "AWS_REGION, and AWS_ALLOW_HTTP for an endpoint without TLS",
        ) from error
    except FileNotFoundError as error:
        if error.errno is not None:
            raise
        raise not_found(model, f"lacks a file or bucket ({_short(error)})") from error


def _denied(model: BucketModel, error: BaseException) -> ModelRefused:
    return ModelRefused(
        FailureReason.ACCESS_DENIED,
        f"{model} may not be read ({_short(error)}); give AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY that may list and get it (secretRef), or AWS_SKIP_SIGNATURE=true "
        "for a public bucket",
    )


def _short(error: BaseException) -> str:
    text = " ".join(str(error).partition("Debug source:")[0].split())
    return f"{text[:300]} …" if len(text) > 300 else text
