"""Cumulative histograms as Prometheus counts them: difference, sum, percentile, share within."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """Observations counted by upper bound.

    bounds  finite upper bounds, ascending (seconds or tokens)
    counts  observations at or below each bound, and last of all bounds: one longer than `bounds`
    total   sum of the observations
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float

    @property
    def count(self) -> float:
        """Observations in all."""
        return self.counts[-1]

    @property
    def mean(self) -> float | None:
        """Mean observation; None when there is none."""
        return self.total / self.count if self.count > 0 else None

    def since(self, older: "Histogram") -> "Histogram":
        """Return what was observed after `older` was read; never below zero."""
        if older.bounds != self.bounds:
            return self
        counts = tuple(max(0.0, a - b) for a, b in zip(self.counts, older.counts, strict=True))
        return Histogram(self.bounds, counts, max(0.0, self.total - older.total))

    def percentile(self, percentile: float) -> float | None:
        """Return the value that `percentile` (0-100) of the observations stay at or below.

        Linear within a bucket; beyond the last finite bound it is that bound, which is too low.
        """
        if self.count <= 0:
            return None
        rank = percentile / 100 * self.count
        lower, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count >= rank and count > below:
                return lower + (bound - lower) * (rank - below) / (count - below)
            lower, below = bound, count
        return lower

    def share_within(self, limit: float) -> float | None:
        """Return the share (0-1) of observations at or below `limit`; linear within a bucket."""
        if self.count <= 0:
            return None
        lower, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if limit <= bound:
                inside = (limit - lower) / (bound - lower) if bound > lower else 1.0
                return (below + (count - below) * inside) / self.count
            lower, below = bound, count
        return below / self.count


def merged(parts: Iterable[Histogram]) -> Histogram | None:
    """Add histograms up; where their bounds differ only the shared ones are kept, and are exact."""
    known = [part for part in parts if part.counts]
    if not known:
        return None
    shared = set(known[0].bounds).intersection(*(part.bounds for part in known[1:]))
    bounds = tuple(sorted(shared))
    counts = [0.0] * (len(bounds) + 1)
    for part in known:
        at = dict(zip(part.bounds, part.counts, strict=False))
        for index, bound in enumerate(bounds):
            counts[index] += at[bound]
        counts[-1] += part.count
    return Histogram(bounds, tuple(counts), sum(part.total for part in known))
