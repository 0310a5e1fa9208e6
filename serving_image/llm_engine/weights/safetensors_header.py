"""Read the headers of safetensors files, one or sharded.

Format: https://github.com/huggingface/safetensors#format.
"""

import json
from pathlib import Path
from typing import Any, Final

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.header import TensorEntry, refuse

INDEX_NAME: Final = "model.safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"
MOST_HEADER_BYTES: Final = 100_000_000
"""The format's own bound on a header."""

DTYPE_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def read_safetensors_headers(folder: Path) -> dict[str, TensorEntry]:
    """Read every shard's header; raise ModelRefused where a shard is missing or unsound."""
    index = folder / INDEX_NAME
    if not index.is_file():
        return read_safetensors_header(folder / SINGLE_NAME)
    tensors: dict[str, TensorEntry] = {}
    for shard in _shards(index):
        path = folder / shard
        if not path.is_file():
            raise ModelRefused(
                FailureReason.INVALID_MODEL,
                f"{index} names the shard {shard}, which is not in {folder}; "
                "expected every shard beside its index",
            )
        tensors.update(read_safetensors_header(path))
    return tensors


def _shards(index: Path) -> list[str]:
    try:
        content = json.loads(index.read_text())
        shards = sorted(set(content["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        refuse(index, f"not a shard index ({error})", "JSON with a weight_map of file names")
    for shard in shards:
        if Path(shard).name != shard:
            refuse(index, f"shard {shard!r}", "a file name without a folder")
    return shards


def read_safetensors_header(path: Path) -> dict[str, TensorEntry]:
    """Read one file's header; every offset is checked against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MOST_HEADER_BYTES):
            refuse(
                path,
                f"the header claims {length} bytes",
                f"at most {max(0, min(size - 8, MOST_HEADER_BYTES))} in a file of {size} bytes",
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        refuse(path, f"the header is not JSON ({error})", "a safetensors header")
    if not isinstance(header, dict):
        refuse(path, f"the header is a {type(header).__name__}", "an object")
    header.pop("__metadata__", None)
    data_start = 8 + length
    return {name: _entry(path, name, item, data_start, size) for name, item in header.items()}


def _entry(path: Path, name: str, item: Any, data_start: int, file_bytes: int) -> TensorEntry:
    try:
        dtype, shape = item["dtype"], tuple(item["shape"])
        begin, end = item["data_offsets"]
        whole = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        refuse(path, f"tensor {name} is described by {item!r:.200}", "dtype, shape, data_offsets")
    if dtype not in DTYPE_BYTES:
        refuse(path, f"tensor {name} has dtype {dtype!r}", f"one of {', '.join(DTYPE_BYTES)}")
    entry = TensorEntry(name, dtype, shape, path, data_start + begin, end - begin)
    if entry.elements * DTYPE_BYTES[dtype] != entry.stored_bytes:
        refuse(
            path,
            f"tensor {name} of shape {shape} and dtype {dtype} spans {entry.stored_bytes} bytes",
            f"{entry.elements * DTYPE_BYTES[dtype]}",
        )
    if data_start + end > file_bytes:
        refuse(
            path,
            f"tensor {name} ends at byte {data_start + end}",
            f"at most the file's {file_bytes} bytes (is the download complete?)",
        )
    return entry
