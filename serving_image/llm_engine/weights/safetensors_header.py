"""Read the headers of safetensors files, one or sharded.

Format: https://github.com/huggingface/safetensors#format.
"""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.header import TensorEntry, check_apart, refuse

INDEX_NAME: Final = "model.safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"
MOST_HEADER_BYTES: Final = 32 << 20
"""Some hundred thousand tensors. The format allows 100 MB, whose JSON would take gigabytes."""
LARGEST_NUMBER: Final = 1 << 63

MOST_DIMENSIONS: Final = 8

DTYPE_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def read_safetensors_headers(folder: Path) -> dict[str, TensorEntry]:
    """Read every shard's header; raise ModelRefused where a shard is missing or unsound."""
    index = folder / INDEX_NAME
    if not index.is_file():
        return read_safetensors_header(folder / SINGLE_NAME)
    placed = _weight_map(index)
    tensors: dict[str, TensorEntry] = {}
    for shard in sorted(set(placed.values())):
        path = folder / shard
        if not path.is_file():
            raise ModelRefused(
                FailureReason.INVALID_MODEL,
                f"{index} names the shard {shard}, which is not in {folder}; "
                "expected every shard beside its index",
            )
        for name, entry in read_safetensors_header(path).items():
            if name in tensors:
                refuse(path, f"tensor {name} is in {tensors[name].path.name} too", "it once")
            tensors[name] = entry
    for name, shard in placed.items():
        if name not in tensors or tensors[name].path.name != shard:
            refuse(index, f"tensor {name} is not in {shard}", "the shard that holds it")
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    """Return the shard of each tensor; a shard is a file beside its index and nothing else."""
    try:
        placed = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        refuse(index, f"not a shard index ({error})", "JSON with a weight_map of file names")
    if not isinstance(placed, dict) or not placed:
        refuse(index, f"the weight_map is {placed!r:.100}", "file names by the names of tensors")
    for name, shard in placed.items():
        # A name with a folder, or a pickle's, could lead to a file that nobody meant.
        if not (
            isinstance(shard, str) and shard.endswith(".safetensors") and Path(shard).name == shard
        ):
            refuse(
                index,
                f"tensor {name} is in {shard!r:.200}",
                "a .safetensors file named without a folder",
            )
    return placed


def read_safetensors_header(path: Path) -> dict[str, TensorEntry]:
    """Read one file's header; every offset is checked against the file's size and the others."""
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
        header = json.loads(raw.decode(), object_pairs_hook=partial(_unique, path))
    except (ValueError, RecursionError) as error:
        refuse(path, f"the header is not JSON ({error})", "a safetensors header")
    if not isinstance(header, dict):
        refuse(path, f"the header is a {type(header).__name__}", "an object")
    header.pop("__metadata__", None)
    data_start = 8 + length
    entries = {name: _entry(path, name, item, data_start, size) for name, item in header.items()}
    check_apart(entries)
    return entries


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        refuse(path, f"the header describes {twice!r:.200} twice", "every name once")
    return found


def _entry(path: Path, name: str, item: Any, data_start: int, file_bytes: int) -> TensorEntry:
    try:
        dtype, shape = item["dtype"], tuple(item["shape"])
        begin, end = item["data_offsets"]
        numbers = (*shape, begin, end)
        whole = all(type(n) is int and 0 <= n < LARGEST_NUMBER for n in numbers)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or len(shape) > MOST_DIMENSIONS:
        refuse(path, f"tensor {name} is described by {item!r:.200}", "dtype, shape, data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        refuse(path, f"tensor {name} has dtype {dtype!r:.100}", f"one of {', '.join(DTYPE_BYTES)}")
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
