"""Load a checkpoint's tensors, one at a time."""

import numpy as np
import torch
from torch import Tensor

from llm_engine.weights.checkpoint import Checkpoint
from llm_engine.weights.ggml_blocks import DECODERS
from llm_engine.weights.gguf_header import BLOCK_BYTES
from llm_engine.weights.header import TensorEntry
from llm_engine.weights.mapped_files import MappedFiles
from llm_engine.weights.names import Matrix, bias, weight
from llm_engine.weights.progress import ProgressLog, Tally
from llm_engine.weights.stored_tensors import FLOATS, SUFFIXES

# What needs no decoding is mapped from the file as it is.
_STORED_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I8": torch.int8,
    "I32": torch.int32,
}


class TensorReader:
    """The tensors of one checkpoint; files are memory-mapped, so nothing is read twice.

    Logs how far the reading has come.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        total_bytes = sum(entry.stored_bytes for entry in checkpoint.tensors.values())
        self._files = MappedFiles(Tally(total_bytes, ProgressLog("loaded")).add)

    def read(self, name: str) -> Tensor:
        """Return one tensor in the dtype it is stored in; fp32 where it was block-quantized.

        The tensor may share memory with the file: copy it before writing.
        """
        return self._decode(self._checkpoint.tensors[name])

    def matrix(self, matrix: Matrix) -> Tensor:
        """Return the weight of a linear, or of a piece of one: [out_features, in_features].

        Rows are in our order, whatever the file's is; as `read` otherwise.
        """
        entry = self._checkpoint.tensors[weight(matrix.name)]
        if matrix.expert is not None:
            entry = entry.part(matrix.expert, matrix.experts)
        return in_halves(self._decode(entry), matrix)

    def stored(self, matrix: Matrix) -> dict[str, Tensor]:
        """Return the tensors of a linear that is quantized in the files, by suffix; none: not so.

        They may share memory with the files.
        """
        tensors = self._checkpoint.tensors
        entry = tensors.get(weight(matrix.name))
        if self._checkpoint.settings.stored is None or (entry and entry.dtype in FLOATS):
            return {}
        prefix = matrix.name + "."
        return {
            name.removeprefix(prefix): self.read(name)
            for name in (prefix + suffix for suffix in SUFFIXES)
            if name in tensors
        }

    def bias(self, matrix: Matrix) -> Tensor | None:
        """Return the bias of a linear, or of a piece of one; None where it has none."""
        return in_halves(self.read(bias(matrix.name)), matrix) if matrix.bias else None

    def rope_factors(self) -> Tensor | None:
        """Return what each rotary frequency is divided by, where the file says so."""
        entry = self._checkpoint.rope_factors
        return None if entry is None else self._decode(entry)

    def _decode(self, entry: TensorEntry) -> Tensor:
        raw = self._files.read(entry)
        if entry.dtype in _STORED_DTYPES:
            return torch.from_numpy(raw).view(_STORED_DTYPES[entry.dtype]).view(entry.shape)
        if entry.dtype in DECODERS:
            blocks = torch.from_numpy(raw).view(-1, BLOCK_BYTES[entry.dtype])
            return DECODERS[entry.dtype](blocks).view(entry.shape)
        import gguf  # imports that most files never need

        rows = raw.reshape(*entry.shape[:-1], -1)
        decoded = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[entry.dtype])
        return torch.from_numpy(np.ascontiguousarray(decoded, dtype=np.float32))


def in_halves(rows: Tensor, matrix: Matrix) -> Tensor:
    """Put a query's or key's rows into our order, where llama.cpp has changed it.

    llama.cpp rotates neighbours (0, 1), (2, 3) …; we rotate row i with row i + head_dim / 2. So
    each head's even rows come first here, then its odd ones.

    rows  [out_features, …]
    """
    if matrix.heads is None:
        return rows
    # [heads, head_dim / 2, pair, …] -> [heads, pair, head_dim / 2, …]
    pairs = rows.view(matrix.heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)
