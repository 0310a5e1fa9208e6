"""Which targets have data that can be trusted, and what is wrong with the others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from llm_operator.scaling.samples import SCRAPE_TIMEOUT_S, Reading, Series
from llm_operator.scaling.window import Stretch, latest_stretch

STALE_SCRAPES: Final = 3
SETTLED_S: Final = 10.0
"""A stretch shorter than this is not yet a rate."""


@dataclass(frozen=True)
class Gap:
    """A target whose data are missing; `lost` is False while it is only too young to tell."""

    name: str
    reason: str
    message: str
    lost: bool = True


def trusted(
    names: Iterable[str],
    series_by_name: Mapping[str, Series[Reading]],
    now_s: float,
    interval_s: float,
) -> tuple[dict[str, Stretch[Reading]], list[Gap]]:
    """Return the fresh stretches by name, and a gap for each target that is not fully known.

    A stretch that is fresh but young is in both: good enough to grow by, not to shrink by.
    """
    fresh: dict[str, Stretch[Reading]] = {}
    gaps: list[Gap] = []
    for name in names:
        series: Series[Reading] = series_by_name.get(name) or Series()
        stretch = latest_stretch(series)
        gap = _gap(name, series, stretch, now_s, interval_s)
        if gap is not None:
            gaps.append(gap)
        if stretch is not None and (gap is None or not gap.lost):
            fresh[name] = stretch
    return fresh, gaps


def _gap(
    name: str,
    series: Series[Reading],
    stretch: Stretch[Reading] | None,
    now_s: float,
    interval_s: float,
) -> Gap | None:
    """Say what is wrong with the data of one target; None when nothing is."""
    why = f": {series.problem}" if series.problem else ""
    if stretch is None:
        if series.problem:
            return Gap(name, "ScrapeFailed", f"{name} gave no metrics{why}")
        return Gap(name, "NotYetScraped", f"{name} has not been scraped yet", lost=False)
    age_s = now_s - stretch.last.at_s
    if not 0 <= age_s <= STALE_SCRAPES * interval_s + SCRAPE_TIMEOUT_S:
        return Gap(name, "SamplesStale", f"the last metrics of {name} are {age_s:.0f} s old{why}")
    if stretch.covered_s < SETTLED_S and not stretch.restarted:
        return Gap(
            name,
            "SamplesYoung",
            f"{name} has been seen for {stretch.covered_s:.0f} s, {SETTLED_S:.0f} s are needed",
            lost=False,
        )
    return None
