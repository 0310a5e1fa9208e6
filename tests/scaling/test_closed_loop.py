"""The law around a made-up cluster; `pytest -s` on this file prints the table."""

from dataclasses import replace

import pytest

from tests.scaling import cases
from tests.scaling.closed_loop import HEADER, Case, Report, simulate


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    done = {case.name: simulate(case) for case in cases.ALL}
    print("\n" + "\n".join([HEADER, *(report.line() for report in done.values())]))
    return done


@pytest.mark.parametrize(
    ("case", "attainment", "times_oracle"),
    [
        (cases.STEADY, 0.995, 1.15),
        (cases.STEP, 0.95, 1.2),
        (cases.BURST, 0.75, 1.2),
        (cases.WAVE, 0.97, 1.2),
        (cases.OSCILLATION, 0.99, 1.4),
        (cases.FLASH, 0.80, 1.4),
        (cases.STAGES, 0.97, 1.5),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_users_and_payers_fare_well(
    reports: dict[str, Report], case: Case, attainment: float, times_oracle: float
) -> None:
    report = reports[case.name]
    assert report.attainment >= attainment
    assert report.replica_hours <= times_oracle * report.oracle_hours
    assert report.lost == 0


def test_an_oscillation_turns_at_most_once_per_stabilization(reports: dict[str, Report]) -> None:
    assert reports[cases.OSCILLATION.name].turns <= 1


def test_a_flash_crowd_from_zero_is_gone_to_zero_again(reports: dict[str, Report]) -> None:
    changes = reports[cases.FLASH.name].changes
    assert changes[0][1] >= 1
    assert changes[0][0] <= 122  # a second after the first request
    assert changes[-1][1] == 0


def test_a_step_from_cold_is_learned_while_it_happens() -> None:
    cold = simulate(replace(cases.STEP, warm=False))
    assert cold.attainment >= 0.9
    assert cold.peak <= 7
