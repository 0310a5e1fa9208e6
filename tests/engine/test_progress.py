"""How far a download has come: each percent once, each tenth in the log."""

import logging
from pathlib import Path

import pytest

from llm_engine.weights.progress import Progress, ProgressLog, Tally
from tests.engine.tiny_llama import an_engine, save_tiny_llama


def test_each_whole_percent_is_told_once() -> None:
    told: list[str] = []
    tally = Tally(1000, lambda progress: told.append(str(progress)))
    for count in (4, 5, 1, 490, 500):
        tally.add(count)
    assert told == ["1 % of 0.0 MB", "50 % of 0.0 MB", "100 % of 0.0 MB"]


def test_what_has_to_be_fetched_again_is_not_told_again() -> None:
    told: list[int] = []
    tally = Tally(100, lambda progress: told.append(progress.percent))
    for count in (40, -40, 30, 30):
        tally.add(count)
    assert told == [40, 60]


def test_nothing_to_fetch_is_all_of_it() -> None:
    assert Progress(0, 0).percent == 100


def test_another_tenth_is_logged_even_if_it_was_not_met_exactly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_progress = ProgressLog()
    with caplog.at_level(logging.INFO):
        for percent in (3, 8, 17, 19, 25, 29, 100):
            on_progress(Progress(percent * 10_000_000, 1_000_000_000))
    assert caplog.messages == [f"fetched {percent} % of 1,000.0 MB" for percent in (17, 25, 100)]


def test_reading_weights_is_told_as_loading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_tiny_llama(tmp_path)
    with caplog.at_level(logging.INFO):
        an_engine(tmp_path)
    told = [message for message in caplog.messages if message.startswith("loaded ")]
    assert len(told) >= 5
    assert told[-1].startswith("loaded 100 % of 0.")
