"""Percentiles and shares of what Prometheus counts in buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.scaling.histogram import Histogram, merged
from tests.scaling.builders import seen

TEN = Histogram((1.0, 2.0, 4.0), (2.0, 6.0, 9.0, 10.0), 20.0)


@pytest.mark.parametrize(
    ("percentile", "value"),
    [(10, 0.5), (20, 1.0), (40, 1.5), (60, 2.0), (90, 4.0), (99, 4.0)],
)
def test_percentiles_are_linear_within_a_bucket(percentile: float, value: float) -> None:
    assert TEN.percentile(percentile) == pytest.approx(value)


@pytest.mark.parametrize(("limit", "share"), [(0.5, 0.1), (1, 0.2), (3, 0.75), (4, 0.9), (9, 0.9)])
def test_shares_are_linear_within_a_bucket(limit: float, share: float) -> None:
    assert TEN.share_within(limit) == pytest.approx(share)


def test_nothing_observed_has_no_percentile() -> None:
    empty = TEN.since(TEN)
    assert (empty.percentile(95), empty.share_within(1.0), empty.mean) == (None, None, None)


def test_histograms_with_other_bounds_are_added_over_the_shared_ones() -> None:
    both = merged([TEN, Histogram((2.0, 3.0), (1.0, 2.0, 2.0), 4.0)])
    assert both == Histogram((2.0,), (7.0, 12.0), 24.0)
    assert merged([]) is None


@given(st.lists(st.floats(0, 5), min_size=1, max_size=50), st.floats(1, 99))
def test_a_percentile_has_its_share_below(values_s: list[float], percentile: float) -> None:
    histogram = seen(*values_s)
    value_s = histogram.percentile(percentile)
    assert value_s is not None
    assert histogram.share_within(value_s) == pytest.approx(percentile / 100, abs=1e-6)
