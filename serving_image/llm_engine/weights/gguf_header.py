"""Read a GGUF file's metadata and tensor list.

The `gguf` package's reader makes an array per vocabulary entry and takes seconds; this one takes a
tenth of a second, and believes no length before checking it against the file.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3).
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_engine.weights.header import TensorEntry, check_apart, refuse

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
DEFAULT_ALIGNMENT: Final = 32
MOST_DIMENSIONS: Final = 4
MOST_HEADER_BYTES: Final = 32 << 20
"""More than any header: the largest vocabularies (256,000 words) take 14 MB. A file may be a hole
of a terabyte, so its size alone does not bound what a count may claim."""

# Value types: the struct code of each scalar.
_SCALARS: Final = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9

# Tensor types: name, elements per block, bytes per block (ggml's type traits).
TENSOR_TYPES: Final = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
BLOCK_BYTES: Final = {name: size for name, _, size in TENSOR_TYPES.values()}
"""Bytes of one block, by the name of its type."""


@dataclass(frozen=True)
class GgufHeader:
    """A GGUF file without its weights."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorEntry]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file; raise ModelRefused where it is not a sound one."""
    if path.stat().st_size < len(MAGIC):
        refuse(path, f"{path.stat().st_size} bytes", "a GGUF file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(path, data).read()


class _Reader:
    """A cursor over the mapped file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.offset = len(MAGIC)
        self.end = min(len(data), MOST_HEADER_BYTES)

    def read(self) -> GgufHeader:
        if self.data[: len(MAGIC)] != MAGIC:
            refuse(self.path, f"starts with {self.data[:4]!r}", f"{MAGIC!r}")
        (version,) = self.numbers("I")
        if version not in VERSIONS:
            refuse(self.path, f"GGUF version {version}", "version 2 or 3, little-endian")
        tensor_count, value_count = self.numbers("QQ")
        metadata: dict[str, Any] = {}
        for _ in range(self.bounded(value_count)):
            name = self.text()
            (kind,) = self.numbers("I")
            if name in metadata:
                refuse(self.path, f"metadata {name!r:.200} is there twice", "every name once")
            metadata[name] = self.value(kind)
        raw = [self.tensor() for _ in range(self.bounded(tensor_count))]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            refuse(self.path, f"general.alignment {alignment!r}", "a power of two")
        begin = -(-self.offset // alignment) * alignment
        tensors = {}
        for name, shape, kind, relative in raw:
            tensors[name] = self.entry(name, shape, kind, begin + relative)
        if len(tensors) < len(raw):
            refuse(self.path, "two tensors of one name", "names that differ")
        check_apart(tensors)
        return GgufHeader(self.path, metadata, tensors)

    def numbers(self, code: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + code)
        if self.offset + size > self.end:
            refuse(
                self.path,
                f"the header goes on at byte {self.offset}",
                f"its end within the file's {len(self.data)} bytes and {MOST_HEADER_BYTES}",
            )
        found = struct.unpack_from("<" + code, self.data, self.offset)
        self.offset += size
        return found

    def bounded(self, count: int) -> int:
        """Return a count of things of at least one byte each, refusing what cannot be there."""
        if count > self.end - self.offset:
            refuse(
                self.path,
                f"the header claims {count} entries at byte {self.offset}",
                f"at most the file's {len(self.data)} bytes and {MOST_HEADER_BYTES}",
            )
        return count

    def text(self) -> str:
        (length,) = self.numbers("Q")
        end = self.offset + self.bounded(length)
        try:
            found = self.data[self.offset : end].decode()
        except UnicodeDecodeError:
            refuse(self.path, f"text at byte {self.offset} is not UTF-8", "UTF-8")
        self.offset = end
        return found

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY and depth == 0:
            element, count = self.numbers("IQ")
            if element in _SCALARS:
                return self.numbers(f"{self.bounded(count)}{_SCALARS[element]}")
            return tuple(self.value(element, depth + 1) for _ in range(self.bounded(count)))
        if kind not in _SCALARS:
            refuse(self.path, f"metadata type {kind} at byte {self.offset}", "a known type")
        return self.numbers(_SCALARS[kind])[0]

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text()
        (dimensions,) = self.numbers("I")
        if dimensions > MOST_DIMENSIONS:
            refuse(self.path, f"tensor {name} has {dimensions} dimensions", f"<= {MOST_DIMENSIONS}")
        shape = self.numbers(f"{dimensions}Q")
        kind, relative = self.numbers("IQ")
        return name, tuple(reversed(shape)), kind, relative  # GGUF keeps the innermost first

    def entry(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> TensorEntry:
        if kind not in TENSOR_TYPES:
            known = ", ".join(type_name for type_name, _, _ in TENSOR_TYPES.values())
            refuse(self.path, f"tensor {name} has type {kind}", f"one of {known}")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        if not shape or shape[-1] % block:
            refuse(self.path, f"tensor {name} has shape {shape}", f"rows in blocks of {block}")
        elements = 1
        for size in shape:
            elements *= size
        stored = elements // block * block_bytes
        if start + stored > len(self.data):
            refuse(
                self.path,
                f"tensor {name} ends at byte {start + stored}",
                f"at most the file's {len(self.data)} bytes (is the download complete?)",
            )
        return TensorEntry(name, type_name, shape, self.path, start, stored)
