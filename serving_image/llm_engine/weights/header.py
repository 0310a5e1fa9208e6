"""What a weight file's header says of its tensors, checked against the file's size."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
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

    def part(self, index: int, parts: int) -> "TensorEntry":
        """Return one of `parts` tensors that lie behind each other in this one."""
        size = self.stored_bytes // parts
        return replace(
            self, shape=self.shape[1:], start=self.start + index * size, stored_bytes=size
        )


def refuse(path: Path, found: str, expected: str) -> NoReturn:
    """Refuse a file whose content is not what it should be."""
    raise ModelRefused(FailureReason.INVALID_MODEL, f"{path}: {found}; expected {expected}")


def check_apart(entries: Mapping[str, TensorEntry]) -> None:
    """Refuse tensors of one file that share bytes: one of the two lies about where it is."""
    ordered = sorted(
        (entry for entry in entries.values() if entry.stored_bytes), key=lambda entry: entry.start
    )
    for before, after in pairwise(ordered):
        if before.start + before.stored_bytes > after.start:
            refuse(
                after.path,
                f"tensors {before.name} and {after.name} overlap at byte {after.start}",
                "each at bytes of its own",
            )
