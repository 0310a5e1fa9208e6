"""A model on disk: its settings and where each tensor lies, with nothing loaded yet."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights import names
from llm_engine.weights.gguf_header import TENSOR_TYPES, read_gguf_header
from llm_engine.weights.header import TensorEntry
from llm_engine.weights.safetensors_header import (
    INDEX_NAME,
    SINGLE_NAME,
    read_safetensors_headers,
)
from llm_engine.weights.settings import (
    DecoderSettings,
    settings_from_folder,
    settings_from_gguf,
)
from llm_engine.weights.stored_tensors import RequiredTensor, required_tensors

_GGUF_DTYPES: Final = frozenset(name for name, _, _ in TENSOR_TYPES.values())


@dataclass(frozen=True)
class Checkpoint:
    """A complete model whose headers were checked against its settings.

    path      a folder with safetensors, or a GGUF file
    tensors   by the names that the files give them; see `names`
    metadata  of a GGUF file; empty for a folder
    """

    path: Path
    file_format: Literal["safetensors", "gguf"]
    settings: DecoderSettings
    tensors: dict[str, TensorEntry]
    metadata: dict[str, Any]
    rope_factors: TensorEntry | None = None

    @property
    def file_bytes(self) -> int:
        """Return the bytes of all weight files."""
        return sum(path.stat().st_size for path in {e.path for e in self.tensors.values()})

    @property
    def file_dtype(self) -> str:
        """Return the dtype that most weights (by elements) have in the files."""
        elements: Counter[str] = Counter()
        for entry in self.tensors.values():
            elements[entry.dtype] += entry.elements
        return elements.most_common(1)[0][0]


def open_checkpoint(path: Path) -> Checkpoint:
    """Read the headers at `path` and check them; raise ModelRefused where they will not do."""
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise ModelRefused(
            FailureReason.MODEL_NOT_FOUND,
            f"{path} does not exist; expected a folder with config.json and safetensors, "
            "or a .gguf file",
        )
    if path.suffix != ".gguf":
        raise ModelRefused(
            FailureReason.INVALID_MODEL,
            f"{path} is a {path.suffix or 'nameless'} file; expected a folder or a .gguf file "
            "(pickled weights are never loaded)",
        )
    return _open_gguf(path)


def _open_folder(folder: Path) -> Checkpoint:
    if not (folder / INDEX_NAME).is_file() and not (folder / SINGLE_NAME).is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        if len(ggufs) == 1:
            return _open_gguf(ggufs[0])
        present = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise ModelRefused(
            FailureReason.MODEL_NOT_FOUND,
            f"{folder} holds {present}; expected {SINGLE_NAME}, {INDEX_NAME} or one .gguf file"
            + (" (name one of the .gguf files)" if ggufs else "")
            + "; pickled weights are never loaded",
        )
    settings = settings_from_folder(folder)
    found = read_safetensors_headers(folder)
    required = required_tensors(
        names.expected_shapes(settings.names, settings.shape),
        names.linear_weights(settings.names, settings.shape),
        settings.stored,
        found,
    )
    tensors = _checked(folder, required, found)
    return Checkpoint(folder, "safetensors", settings, tensors, {})


def _open_gguf(path: Path) -> Checkpoint:
    header = read_gguf_header(path)
    is_tied = names.weight(names.GGUF.head) not in header.tensors
    settings = settings_from_gguf(path, header.metadata, is_tied)
    for name in names.GGUF_REFUSED & header.tensors.keys():
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{path}: has tensor {name}; this engine reads longrope from safetensors only",
        )
    wanted = names.expected_shapes(settings.names, settings.shape)
    required = [RequiredTensor(name, _GGUF_DTYPES, (shape,)) for name, shape in wanted.items()]
    tensors = _checked(path, required, header.tensors)
    factors = header.tensors.get(names.GGUF_ROPE_FACTORS)
    return Checkpoint(path, "gguf", settings, tensors, header.metadata, factors)


def _checked(
    path: Path,
    required: list[RequiredTensor],
    found: dict[str, TensorEntry],
) -> dict[str, TensorEntry]:
    """Return the required tensors, each of a shape and a dtype that it may have."""
    missing = [tensor.name for tensor in required if tensor.name not in found]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelRefused(
            FailureReason.INVALID_MODEL,
            f"{path}: no tensor {', '.join(missing[:3])}{more}; expected every weight of the model",
        )
    for tensor in required:
        entry = found[tensor.name]
        if entry.shape not in tensor.shapes:
            raise ModelRefused(
                FailureReason.INVALID_MODEL,
                f"{entry.path}: tensor {entry.name} has shape {list(entry.shape)}; "
                f"expected {' or '.join(str(list(shape)) for shape in tensor.shapes)} "
                f"from the model's configuration",
            )
        if entry.dtype not in tensor.dtypes:
            raise ModelRefused(
                FailureReason.UNSUPPORTED_MODEL,
                f"{entry.path}: tensor {entry.name} has dtype {entry.dtype}; "
                f"this engine reads {', '.join(sorted(tensor.dtypes))}",
            )
    return {tensor.name: found[tensor.name] for tensor in required}
