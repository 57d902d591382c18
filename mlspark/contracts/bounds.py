"""Bounds and literals as exact values of a column's type: the same comparison on Spark and on Arrow. Runs anywhere."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from mlspark.contracts import column_types

Value = int | float | Decimal | date | datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"(?P<day>\d{4}-\d{1,2}-\d{1,2})"
    r"([T ](?P<hour>\d{1,2}):(?P<minute>\d{2})(:(?P<second>\d{2})(\.(?P<fraction>\d{1,6})0*)?)?"
    r"\s*(?P<zone>Z|UTC|[+-]\d{2}:\d{2})?)?"
)
FIRST_MICROS = -62_135_596_800_000_000
LAST_MICROS = 253_402_300_799_999_999
FIRST_DAY = -719_162
LAST_DAY = 2_932_896
"""Years 1 to 9999, in days and microseconds since 1970: all that Spark promises and Python knows."""


def parse_date(text: str) -> date:
    """Return the date of a text like 1990-01-31.

    Raises:
        ValueError: the text is not a date.
    """
    if not re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a date like 1990-01-31")
    year, month, day = map(int, text.split("-"))
    return date(year, month, day)


def parse_timestamp(text: str) -> datetime:
    """Return the time of a text like 1990-01-31 or 1990-01-31 23:59:59.123456; in UTC unless it names its zone.

    Raises:
        ValueError: the text is not a time, or has digits below a microsecond.
    """
    parts = _TIME.fullmatch(text)
    if not parts or not text.isascii():
        raise ValueError(f"{text!r} is not a time like 1990-01-31 23:59:59 with at most 6 digits after the seconds")
    day = parse_date(parts["day"])
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    micros = int((parts["fraction"] or "").ljust(6, "0"))
    time = datetime(day.year, day.month, day.day, hour, minute, second, micros, tzinfo=UTC)
    zone = parts["zone"]
    if zone and zone[0] in "+-":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        try:
            time = time - offset if zone[0] == "+" else time + offset
        except OverflowError:
            raise ValueError(f"{text!r} is not in the years 1 to 9999") from None
    return time


def micros(time: datetime) -> int:
    """Return microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def exact(number: int | float | Decimal) -> Fraction:
    """Return the number that is written: 0.1 is a tenth, not the double beside it."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def on_grid(number: Fraction, scale: int, *, up: bool) -> Decimal:
    """Return the nearest value with `scale` digits after the point that is not less (`up`) or not greater."""
    scaled = number * 10**scale
    unscaled = -((-scaled.numerator) // scaled.denominator) if up else scaled.numerator // scaled.denominator
    return decimal(unscaled, scale)


def decimal(unscaled: int, scale: int) -> Decimal:
    """Return unscaled / 10^scale exactly; Decimal's own arithmetic rounds to 28 digits."""
    return Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -scale))


def limits(column_type: str) -> tuple[Fraction, Fraction]:
    """Return the least and greatest value of a type of whole numbers or decimals."""
    if column_type in column_types.WHOLE_BITS:
        half = 2 ** (column_types.WHOLE_BITS[column_type] - 1)
        return Fraction(-half), Fraction(half - 1)
    digits, scale = column_types.decimal_digits(column_type)
    most = Fraction(10**digits - 1, 10**scale)
    return -most, most


@lru_cache(maxsize=4096, typed=True)
def bound(limit: int | float | str, column_type: str, side: Literal["min", "max"]) -> Value | None:
    """Return a column's bound as a value of its type, or None where every value of the type satisfies it.

    Whole numbers and decimals are compared as such: a bound between two of them becomes the one inside. A float is
    compared as a double.

    Raises:
        ValueError: the bound cannot be read, or no value of the type satisfies it.
    """
    if isinstance(limit, str):
        return parse_date(limit) if column_type == "date" else parse_timestamp(limit)
    if column_types.family(column_type) == "floating":
        return float(limit)
    number, (least, greatest) = exact(limit), limits(column_type)
    if (side == "min" and number > greatest) or (side == "max" and number < least):
        raise ValueError(f"{side} {limit} is beyond every {column_type}")
    if (side == "min" and number <= least) or (side == "max" and number >= greatest):
        return None
    scale = column_types.decimal_digits(column_type)[1]
    value = on_grid(number, scale, up=side == "min")
    return int(value) if column_type in column_types.WHOLE_BITS else value
