"""Keys for what is built: the same inputs give the same key, so a build is done once."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

UNREAD = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}


def key(root: Path, paths: Iterable[str], settings: Iterable[str] = ()) -> str:
    """Return 12 hex digits over `settings` and the files, or whole folders, `paths` under `root`.

    Names and contents count, times and owners do not. Raises FileNotFoundError for a missing path.
    """
    digest = hashlib.sha256()
    for setting in settings:
        _add(digest, b"setting", setting.encode())
    for path in sorted(_files(root, paths)):
        _add(digest, str(path.relative_to(root)).encode(), path.read_bytes())
    return digest.hexdigest()[:12]


def _files(root: Path, paths: Iterable[str]) -> set[Path]:
    files: set[Path] = set()
    for name in paths:
        path = root / name
        if path.is_dir():
            files.update(
                found
                for found in path.rglob("*")
                if found.is_file() and not UNREAD.intersection(found.relative_to(root).parts)
            )
        elif path.is_file():
            files.add(path)
        else:
            raise FileNotFoundError(f"{path} is an input of a build and is missing")
    return files


def _add(digest: "hashlib._Hash", *parts: bytes) -> None:
    for part in parts:  # lengths first, so that no two lists of parts look alike
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
