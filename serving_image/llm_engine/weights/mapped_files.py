"""Weight files mapped into memory, of which little is resident at a time."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from llm_engine.weights.header import TensorEntry

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]

KEPT_BYTES: Final = 32 << 20
"""So much may stay resident behind the reader: pages that are let go come back when touched."""


class MappedFiles:
    """Files that are mapped when first read. Used by one thread.

    on_read  told the bytes of each tensor
    """

    def __init__(self, on_read: Callable[[int], None] = lambda _bytes: None) -> None:
        self._on_read = on_read
        self._mapped: dict[Path, tuple[mmap.mmap, Bytes]] = {}
        self._touched_bytes = 0

    def read(self, entry: TensorEntry) -> Bytes:
        """Return a tensor's bytes, shared with the file: copy them before writing."""
        if self._touched_bytes > KEPT_BYTES:
            for mapped, _ in self._mapped.values():
                mapped.madvise(mmap.MADV_DONTNEED)
            self._touched_bytes = 0
        self._touched_bytes += entry.stored_bytes
        self._on_read(entry.stored_bytes)
        if entry.path not in self._mapped:
            self._mapped[entry.path] = _map(entry.path)
        _, content = self._mapped[entry.path]
        return content[entry.start : entry.start + entry.stored_bytes]


def _map(path: Path) -> tuple[mmap.mmap, Bytes]:
    """Map a file privately: torch wants writable memory, and the file must never change."""
    with path.open("rb") as file:
        mapped = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    return mapped, np.frombuffer(mapped, dtype=np.uint8)
