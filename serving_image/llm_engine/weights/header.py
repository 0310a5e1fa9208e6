"""What a weight file's header says of its tensors, checked against the file's size."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

from llm_engine.contract.inspection import FailureReason, ModelRefused


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a file.

    shape   outermost dimension first, whatever order the file keeps
    start   first byte, counted from the beginning of the file
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    stored_bytes: int

    @property
    def elements(self) -> int:
        """Count elements."""
        return prod(self.shape)


def refuse(path: Path, found: str, expected: str) -> NoReturn:
    """Refuse a file whose content is not what it should be."""
    raise ModelRefused(FailureReason.INVALID_MODEL, f"{path}: {found}; expected {expected}")
