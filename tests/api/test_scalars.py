"""Durations, money, quantities and numbers: what the wire says, and back."""

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from llm_operator.api.scalars import (
    Duration,
    Elapsed,
    Measured,
    Money,
    Quantity,
    ResourceAmount,
    Text,
    Timestamp,
    duration_s,
    format_duration,
    format_money,
    format_number,
    format_quantity,
    quantity,
)

DURATION: TypeAdapter[Any] = TypeAdapter(Annotated[float, Duration("1ms", "10m")])
MONEY: TypeAdapter[Any] = TypeAdapter(Annotated[Decimal, Money()])
FREE: TypeAdapter[Any] = TypeAdapter(Annotated[Decimal, Money(free=True)])
BYTES: TypeAdapter[Any] = TypeAdapter(Annotated[int, Quantity()])
AMOUNT: TypeAdapter[Any] = TypeAdapter(Annotated[str, ResourceAmount()])
MEASURED: TypeAdapter[Any] = TypeAdapter(Annotated[float, Measured()])
ELAPSED: TypeAdapter[Any] = TypeAdapter(Annotated[float, Elapsed()])
TIME: TypeAdapter[Any] = TypeAdapter(Annotated[datetime, Timestamp()])
WORD: TypeAdapter[Any] = TypeAdapter(Annotated[str, Text("^[a-z]+$", "small letters", 5)])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("1m500ms", 60.5), ("0s", 0)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "1.5s", "-1s", "5 s", "1d", "1us", "s", "1s\n", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration_s(text)


@given(st.integers(min_value=0, max_value=99_999 * 3_600_000))
def test_a_duration_survives_the_wire(milliseconds: int) -> None:
    assert round(duration_s(format_duration(milliseconds / 1000)) * 1000) == milliseconds


@given(st.floats(min_value=0, max_value=1e8))
def test_a_written_duration_is_one_that_kubernetes_reads(seconds: float) -> None:
    assert re.fullmatch(r"([0-9]{1,5}(h|m|s|ms)){1,4}", format_duration(seconds))


@pytest.mark.parametrize(
    ("adapter", "value", "says"),
    [
        (DURATION, "0s", "must be from 1ms to 10m, not 0s"),
        (DURATION, "11m", "must be from 1ms to 10m, not 11m"),
        (DURATION, float("nan"), "must be from 1ms to 10m"),
        (DURATION, "soon", "not a duration such as 500ms"),
        (MONEY, "0.00", "must be more than 0, not 0.00"),
        (MONEY, "NaN", "must be a decimal string"),
        (MONEY, "1e3", "must be a decimal string"),
        (MONEY, "-1", "must be a decimal string"),
        (MONEY, Decimal("Infinity"), "must be more than 0"),
        (MONEY, [], "must be"),
        (BYTES, "0", "must be more than 0, not 0"),
        (BYTES, "12Gb", "not a quantity such as 16Gi"),
        (BYTES, "500m", "must be more than 0, not 500m"),
        (AMOUNT, 0, "must be more than 0, not 0"),
        (AMOUNT, -1, "not a quantity"),
        (AMOUNT, 1.5, "must be a quantity"),
        (AMOUNT, True, "must be a quantity"),
        (TIME, "2026-01-31", "must be a time"),
        (TIME, 5, "must be a time"),
        (WORD, "a\n", "must be small letters"),
        (WORD, "abcdef", "must be at most 5 characters, not 6"),
        (WORD, 7, "must be small letters"),
    ],
)
def test_a_refusal_says_what_is_allowed(adapter: TypeAdapter[Any], value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        adapter.validate_python(value)

    assert says in refusal.value.errors()[0]["msg"]


def test_a_measured_number_that_is_nothing_is_refused() -> None:
    with pytest.raises(ValidationError):
        MEASURED.validate_python(None)


@given(st.decimals(min_value=0, max_value=9_999_999, places=4))
def test_money_survives_the_wire(amount: Decimal) -> None:
    written = FREE.dump_python(amount, mode="json")
    assert FREE.validate_python(written) == amount


@given(st.integers(min_value=1, max_value=10**18 - 1))
def test_bytes_survive_the_wire(amount: int) -> None:
    assert quantity(format_quantity(amount)) == amount


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16Gi", Fraction(16 * 2**30)),
        ("3.35T", Fraction(3_350_000_000_000)),
        ("500m", Fraction(1, 2)),
        ("2", Fraction(2)),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_a_quantity_is_read_exactly(text: str, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize(
    ("amount", "text"), [(24 * 2**30, "24Gi"), (24_150_000_000, "24150M"), (7, "7"), (0, "0")]
)
def test_a_quantity_is_written_with_its_largest_exact_suffix(amount: int, text: str) -> None:
    assert format_quantity(amount) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.4, "2.4"),
        (0.98765, "0.988"),
        (310, "310"),
        (123456, "123000"),
        (1e-5, "0.00001"),
    ],
)
def test_a_measured_number_has_three_digits(value: float, text: str) -> None:
    assert format_number(value) == text


def test_a_time_is_written_in_utc_to_the_second() -> None:
    moment = datetime(2026, 1, 31, 13, 0, 0, 999, tzinfo=timezone(timedelta(hours=1)))

    read = TIME.validate_python(moment)

    assert read == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert TIME.dump_python(read, mode="json") == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("amount", "text"),
    [("12.00", "12.00"), ("1.123456", "1.1235"), ("0.1000000", "0.1000"), ("7", "7")],
)
def test_money_is_written_with_no_more_decimals_than_the_wire_takes(amount: str, text: str) -> None:
    assert format_money(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5, "1s500ms"), (-0.2, "0s"), ("2m", "2m")], ids=str
)
def test_an_elapsed_time_is_never_negative(seconds: Any, text: str) -> None:
    elapsed = ELAPSED.validate_python(seconds)
    assert ELAPSED.dump_python(elapsed, mode="json") == text


def test_an_elapsed_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError):
        ELAPSED.validate_python(float("nan"))


def test_an_amount_stays_as_it_was_written() -> None:
    assert AMOUNT.validate_python(2) == "2"
    assert AMOUNT.validate_python("1500m") == "1500m"
