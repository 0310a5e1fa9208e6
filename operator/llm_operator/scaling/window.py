"""What happened between two readings of one target: the stretch of its series that can be trusted.

A counter that falls starts a new stretch. If the process restarted, what it did before is gone and
counts as zero; if it did not, the data are suspect until enough new readings exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from llm_operator.scaling.samples import Reading, Series


@dataclass(frozen=True)
class Stretch(Generic[Reading]):
    """Consecutive readings within a window, oldest first, without a reset between them.

    restarted  the process started anew at its beginning, so its past is known to be empty
    """

    readings: tuple[Reading, ...]
    restarted: bool = False

    @property
    def first(self) -> Reading:
        """The oldest reading."""
        return self.readings[0]

    @property
    def last(self) -> Reading:
        """The newest reading."""
        return self.readings[-1]

    @property
    def covered_s(self) -> float:
        """Seconds between first and last."""
        return self.last.at_s - self.first.at_s

    def within(self, since_s: float) -> "Stretch[Reading]":
        """Return the part that begins at or after `since_s`; the newest reading always stays."""
        kept = tuple(reading for reading in self.readings if reading.at_s >= since_s)
        if len(kept) == len(self.readings):
            return self
        return Stretch(kept or self.readings[-1:])


def latest_stretch(series: Series[Reading]) -> Stretch[Reading] | None:
    """Return the readings since the last reset; None when there are no readings."""
    readings = series.readings
    if not readings:
        return None
    start = len(readings) - 1
    while start > 0 and not _reset_between(readings[start - 1], readings[start]):
        start -= 1
    return Stretch(readings[start:], restarted=_began_anew(readings, start))


def _reset_between(older: Reading, newer: Reading) -> bool:
    """Tell whether a counter fell or the process is another one."""
    if older.incarnation != newer.incarnation:
        return True
    return any(b < a for a, b in zip(older.counters, newer.counters, strict=True))


def _began_anew(readings: Sequence[Reading], start: int) -> bool:
    """Tell whether the reset before `start` is explained by a restart."""
    return start > 0 and readings[start - 1].incarnation != readings[start].incarnation
