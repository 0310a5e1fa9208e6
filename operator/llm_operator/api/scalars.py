"""Values that Kubernetes writes as strings: durations, money, quantities, measured numbers, times.

Each is a marker for `Annotated`: Python sees a plain number in base units, the wire sees the
string, and the schema carries the rule (CEL) that the API server holds it to. A message names the
value and what is allowed; the API server puts the field's path in front.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from llm_operator.api.rules import Rule, rules

_UNIT_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION: Final = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"  # GEP-2257
_DURATION_PART: Final = re.compile(r"([0-9]{1,5})(h|ms|m|s)")
_DURATION_LENGTH: Final = 28  # four parts of five digits and two letters
_MONEY: Final = r"^[0-9]{1,7}([.][0-9]{1,4})?$"
_MONEY_LENGTH: Final = 12
_QUANTITY: Final = re.compile(r"([0-9]{1,18}(?:[.][0-9]{1,9})?)(Ki|Mi|Gi|Ti|Pi|m|k|M|G|T|P|)")
_QUANTITY_LENGTH: Final = 30
_SUFFIX: Final = {
    "m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(10**3), "M": Fraction(10**6),
    "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
}  # fmt: skip


def duration_s(text: str) -> float:
    """Return the seconds of a GEP-2257 duration such as 1h30m or 500ms.

    Raises ValueError where the text is no duration.
    """
    if not re.fullmatch(_DURATION, text):
        raise ValueError(f"not a duration such as 500ms, 30s, 10m or 1h30m: {text!r}")
    parts = _DURATION_PART.findall(text)
    return sum(int(digits) * _UNIT_MS[unit] for digits, unit in parts) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds as a GEP-2257 duration, rounded to its finest unit, 1 ms."""
    rest_ms = round(seconds * 1000)
    words = []
    for unit, unit_ms in _UNIT_MS.items():
        count, rest_ms = divmod(rest_ms, unit_ms)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words) or "0s"


def format_money(amount: Decimal) -> str:
    """Write an amount with at most four decimals, as the wire takes it."""
    exact = f"{amount:f}"
    return exact if len(exact.partition(".")[2]) <= 4 else f"{amount:.4f}"


def quantity(text: str) -> Fraction:
    """Return the exact value of a Kubernetes quantity such as 80Gi, 3.35T or 500m.

    Raises ValueError where the text is no quantity.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"not a quantity such as 16Gi, 500m or 2: {text!r}")
    return Fraction(found[1]) * _SUFFIX[found[2]]


def format_quantity(value: int) -> str:
    """Write a whole number as a quantity, with the largest suffix that keeps it exact."""
    for suffix in ("Pi", "P", "Ti", "T", "Gi", "G", "Mi", "M", "Ki", "k"):
        if value and value % _SUFFIX[suffix] == 0:
            return f"{value // _SUFFIX[suffix]}{suffix}"
    return str(value)


def format_number(value: float) -> str:
    """Write a measured number with three significant digits, without an exponent."""
    if value == 0:
        return "0"
    rounded = Decimal(f"{value:.3g}")
    return f"{rounded:f}".rstrip("0").rstrip(".") if "." in f"{rounded:f}" else f"{rounded:f}"


def _wire(
    read: Callable[[Any], Any], write: Callable[[Any], str], error: str
) -> core_schema.PlainValidatorFunctionSchema:
    """Build the core schema of a value read by `read` and written as a string by `write`."""

    def validate(value: Any) -> Any:
        try:
            return read(value)
        except (ValueError, TypeError, ArithmeticError) as problem:
            raise PydanticCustomError(error, "{why}", {"why": str(problem)}) from None

    return core_schema.no_info_plain_validator_function(
        validate, serialization=core_schema.plain_serializer_function_ser_schema(write)
    )


@dataclass(frozen=True)
class Text:
    """Text of a given form, the same in Python, schema and message.

    form     regular expression, from ^ to $, that Python and RE2 read alike
    allowed  the form in words, after "must be"
    """

    form: str
    allowed: str
    at_most: int

    def _read(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.form, value):
            raise ValueError(f"must be {self.allowed}, not {value!r}")
        if len(value) > self.at_most:
            raise ValueError(f"must be at most {self.at_most} characters, not {len(value)}")
        return value

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(self._read, str, "text")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        rule = Rule(f"self.matches('{self.form}')", f"must be {self.allowed}", "self")
        return {"type": "string", "minLength": 1, "maxLength": self.at_most, **rules(rule)}


@dataclass(frozen=True)
class Duration:
    """Seconds as float in Python, a GEP-2257 duration on the wire, within bounds."""

    at_least: str
    at_most: str

    def _read(self, value: Any) -> float:
        seconds = duration_s(value) if isinstance(value, str) else float(value)
        if not duration_s(self.at_least) <= seconds <= duration_s(self.at_most):
            raise ValueError(f"must be from {self.at_least} to {self.at_most}, not {value}")
        return seconds

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(self._read, format_duration, "duration")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        format_holds = f"self.matches('{_DURATION}')"
        bounds = f"duration('{self.at_least}') <= duration(self) && duration(self) <= "
        return {
            "type": "string",
            "maxLength": _DURATION_LENGTH,
            **rules(
                Rule(format_holds, "must be a duration such as 500ms, 30s, 10m or 1h30m", "self"),
                Rule(
                    f"!{format_holds} || {bounds}duration('{self.at_most}')",
                    f"must be from {self.at_least} to {self.at_most}",
                    "self",
                ),
            ),
        }


@dataclass(frozen=True)
class Elapsed:
    """Measured seconds: float in Python, a GEP-2257 duration on the wire.

    Clocks that disagree can make a time negative; it counts as none.
    """

    def _read(self, value: Any) -> float:
        seconds = duration_s(value) if isinstance(value, str) else float(value)
        if not math.isfinite(seconds):
            raise ValueError(f"must be finite, not {value}")
        return max(seconds, 0.0)

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(self._read, format_duration, "duration")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "maxLength": _DURATION_LENGTH}


@dataclass(frozen=True)
class Money:
    """Decimal in Python, a decimal string such as "12.00" on the wire; positive unless `free`."""

    free: bool = False

    def _read(self, value: Any) -> Decimal:
        if isinstance(value, str) and not re.fullmatch(_MONEY, value):
            raise ValueError(f'must be a decimal string such as "12.00", not {value!r}')
        amount = Decimal(value)
        if not amount.is_finite() or amount < 0 or (amount == 0 and not self.free):
            raise ValueError(f"must be {'0 or more' if self.free else 'more than 0'}, not {value}")
        return amount

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(self._read, format_money, "money")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        format_holds = f"self.matches('{_MONEY}')"
        allowed = [Rule(format_holds, "must be a decimal string such as '12.00'", "self")]
        if not self.free:
            positive = f"!{format_holds} || double(self) > 0.0"
            allowed.append(Rule(positive, "must be more than 0", "self"))
        return {"type": "string", "maxLength": _MONEY_LENGTH, **rules(*allowed)}


@dataclass(frozen=True)
class Quantity:
    """A whole number in base units in Python, a positive Kubernetes quantity on the wire.

    A fraction of the base unit is dropped: nobody owns half a byte.
    """

    def _read(self, value: Any) -> int:
        amount = int(quantity(value)) if isinstance(value, str) else int(value)
        if amount <= 0:
            raise ValueError(f"must be more than 0, not {value}")
        return amount

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(self._read, format_quantity, "quantity")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return positive_quantity_schema()


@dataclass(frozen=True)
class ResourceAmount:
    """The quantity as written, a string in Python; the wire also takes a whole number (cpu: 2)."""

    def _read(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise TypeError(f"must be a quantity such as 16Gi, 500m or 2, not {value!r}")
        if quantity(str(value)) <= 0:
            raise ValueError(f"must be more than 0, not {value}")
        return str(value)

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(self._read, str, "quantity")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return positive_quantity_schema(or_integer=True)


def positive_quantity_schema(or_integer: bool = False) -> dict[str, Any]:
    """Return the schema of a quantity above zero; `or_integer` also takes an unquoted number."""
    allowed = "must be a quantity above 0, such as 16Gi, 500m or 2"
    text_holds = (
        f"size(self) <= {_QUANTITY_LENGTH} && self.matches('^{_QUANTITY.pattern}$')"
        " && quantity(self).isGreaterThan(quantity('0'))"
    )
    if not or_integer:
        rule = Rule(text_holds, allowed, "self")
        return {"type": "string", "maxLength": _QUANTITY_LENGTH, **rules(rule)}
    rule = Rule(f"type(self) == int ? self > 0 : {text_holds}", allowed, "self")
    return {"x-kubernetes-int-or-string": True, **rules(rule)}


@dataclass(frozen=True)
class Measured:
    """A measured number: float in Python, three significant digits in a string on the wire."""

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(float, format_number, "number")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "maxLength": 32}


@dataclass(frozen=True)
class Timestamp:
    """A moment: aware datetime in Python, RFC 3339 in UTC to the second on the wire."""

    def _read(self, value: Any) -> datetime:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise ValueError(f"must be a time such as 2026-01-31T12:00:00Z, not {value!r}")
        return moment.astimezone(UTC).replace(microsecond=0)

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return _wire(self._read, lambda moment: f"{moment:%Y-%m-%dT%H:%M:%SZ}", "time")

    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}
