"""What gpu_check.py runs: sections that yield rows of results, in stages."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Row = dict[str, Any]
"""One result; `ok` tells whether a check passed."""


class Skipped(Exception):
    """A section cannot run here; the text says why."""


@dataclass(frozen=True)
class Setting:
    """What all sections are told.

    quick     tiny sizes, to try the script
    ceilings  measured before: copy_gb_per_s, bf16_tflop_per_s
    """

    device: str
    quick: bool
    ceilings: Mapping[str, float] = field(default_factory=dict)

    def share_of_copy(self, bytes_moved: float, seconds: float) -> float | None:
        """Return moved bytes per second as a share of the measured copy bandwidth."""
        copy = self.ceilings.get("copy_gb_per_s")
        return None if copy is None else round(bytes_moved / seconds / 1e9 / copy, 4)

    def share_of_bf16(self, operations: float, seconds: float) -> float | None:
        """Return operations per second as a share of the measured bf16 matrix product."""
        rate = self.ceilings.get("bf16_tflop_per_s")
        return None if rate is None else round(operations / seconds / 1e12 / rate, 4)


@dataclass(frozen=True)
class Section:
    """Rows of results, and the seconds that they may take."""

    name: str
    rows: Callable[[Setting], Iterator[Row]]
    budget_s: float


def _of(module: str, function: str, *arguments: Any) -> Callable[[Setting], Iterator[Row]]:
    """Import a section only in the process that runs it."""

    def run(setting: Setting) -> Iterator[Row]:
        from importlib import import_module

        rows: Iterator[Row] = getattr(import_module(f"benchmarks.gpu.{module}"), function)(
            setting, *arguments
        )
        return rows

    return run


STAGES: Final[tuple[tuple[Section, ...], ...]] = (
    (Section("ceilings", _of("ceilings", "measure"), 40),),
    # Correctness side by side: nothing here is timed.
    (
        Section("kernels torch", _of("correctness", "kernels", "torch"), 90),
        Section("kernels triton", _of("correctness", "kernels", "triton"), 90),
        Section("kernels xformers", _of("correctness", "kernels", "xformers"), 90),
        *(
            Section(
                f"parity {dtype} {attention}", _of("correctness", "parity", dtype, attention), 150
            )
            for dtype in ("float32", "bfloat16")
            for attention in ("triton", "torch")
        ),
        Section("linears", _of("correctness", "linears"), 60),
    ),
    (Section("attention speed", _of("attention_speed", "measure"), 90),),
    (Section("linear speed", _of("linear_speed", "measure"), 40),),
    (Section("model 0.6B", _of("model_speed", "measure", "0.6B"), 120),),
    (Section("model 8B", _of("model_speed", "measure", "8B"), 110),),
    (Section("memory", _of("memory", "measure"), 40),),
    (Section("transformers 0.6B", _of("rival", "measure"), 60),),
)
