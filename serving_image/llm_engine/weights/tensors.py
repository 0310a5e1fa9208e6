"""Load a checkpoint's tensors, one at a time."""

import mmap
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llm_engine.weights.checkpoint import Checkpoint
from llm_engine.weights.ggml_blocks import DECODERS, QUANTIZED_BLOCK
from llm_engine.weights.header import TensorEntry

# What needs no decoding is mapped from the file as it is.
_STORED_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TensorReader:
    """The tensors of one checkpoint; files are memory-mapped, so nothing is read twice."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._mapped = cache(_map_file)

    def read(self, name: str) -> Tensor:
        """Return one tensor in the dtype it is stored in; fp32 where it was block-quantized.

        The tensor may share memory with the file: copy it before writing.
        """
        entry = self._checkpoint.tensors[name]
        tensor = self._decode(entry)
        if self._checkpoint.file_format == "gguf":
            heads = {
                "q_proj": self._checkpoint.settings.shape.query_heads,
                "k_proj": self._checkpoint.settings.shape.kv_heads,
            }.get(name.split(".")[-2])
            if heads is not None:
                return _pairs_to_halves(tensor, heads)
        return tensor

    def rope_factors(self) -> Tensor | None:
        """Return what each rotary frequency is divided by, where the file says so."""
        entry = self._checkpoint.rope_factors
        return None if entry is None else self._decode(entry)

    def _decode(self, entry: TensorEntry) -> Tensor:
        raw = self._mapped(entry.path)[entry.start : entry.start + entry.stored_bytes]
        if entry.dtype in _STORED_DTYPES:
            return torch.from_numpy(raw).view(_STORED_DTYPES[entry.dtype]).view(entry.shape)
        if entry.dtype in DECODERS:
            blocks = torch.from_numpy(raw).view(entry.elements // QUANTIZED_BLOCK, -1)
            return DECODERS[entry.dtype](blocks).view(entry.shape)
        import gguf  # imports that most files never need

        rows = raw.reshape(*entry.shape[:-1], -1)
        decoded = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[entry.dtype])
        return torch.from_numpy(np.ascontiguousarray(decoded, dtype=np.float32))


def _map_file(path: Path) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """Map a file privately: torch wants writable memory, and the file must never change."""
    with path.open("rb") as file:
        mapped = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    return np.frombuffer(mapped, dtype=np.uint8)


def _pairs_to_halves(weight: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's order of a query's or key's rows.

    llama.cpp rotates neighbours (0, 1), (2, 3) …; we rotate row i with row i + head_dim / 2. So
    each head's even rows come first here, then its odd ones.
    """
    rows, columns = weight.shape
    # [heads, head_dim / 2, pair, columns] -> [heads, pair, head_dim / 2, columns]
    pairs = weight.view(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)
