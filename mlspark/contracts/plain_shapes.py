"""What the columns of a small data set hold, from their different texts: what `shapes` finds by Spark. Runs anywhere."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from mlspark.contracts.shapes import DECIMAL_DIGITS, DOUBLE_DIGITS, MARKERS, NUMBERS, Seen

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?!0\d)(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CODE = re.compile(r"[+-]?0\d", re.ASCII)
_DIGITS = re.compile(r"[+-]?0*(\d*)(?:\.(\d+))?", re.ASCII)
_DAY = re.compile(r"(?!0000)\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"(?!0000)\d{4}-\d\d-\d\d[T ]\d\d:\d\d", re.ASCII)
_PLAIN_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?", re.ASCII)
_BOOLEAN = re.compile(r"true|false", re.ASCII | re.IGNORECASE)


class OnlySparkKnows(Exception):
    """What is there means what Spark makes of it: a moment with a time zone, fields that have no name."""


@dataclass(frozen=True, slots=True)
class _Text:
    """One text: its shape, a key of `shapes.FITTING`'s sets or "text", and what it stands for."""

    shape: str
    number: float | None = None
    whole: int = 0
    """Digits before the point, further zeros in front aside; more than a decimal has where there is an exponent."""
    fraction: int = 0
    moment: datetime | None = None


def seen(name: str, position: int, texts: Mapping[str, int]) -> Seen:
    """Return what a column holds.

    Args:
        name: the column's.
        position: its place in the source.
        texts: different text, without blanks around it -> rows that have it; missing values are not among them.

    Raises:
        OnlySparkKnows: see there.
    """
    shapes: dict[str, int] = {}
    found: dict[str, Any] = dict.fromkeys(
        f"{side}_{what}" for side in ("min", "max") for what in ("number", "date", "timestamp")
    )
    found |= dict.fromkeys(("length", "whole", "fraction"))
    for text, rows in texts.items():
        if text in MARKERS:
            continue
        looked = _looked_at(text)
        shapes[looked.shape] = shapes.get(looked.shape, 0) + rows
        if looked.shape in NUMBERS:
            _widen(found, "number", looked.number)
            found["whole"] = max(found["whole"] or 0, looked.whole)
            found["fraction"] = max(found["fraction"] or 0, looked.fraction)
        elif looked.moment is not None:
            _widen(found, "timestamp", looked.moment)
            if looked.shape == "date":
                _widen(found, "date", looked.moment.date())
    found["length"] = max(map(len, texts), default=None)
    return Seen(
        name=name,
        position=position,
        shapes={shape: shapes[shape] for shape in sorted(shapes)},
        markers={text: texts[text] for text in sorted(texts) if text in MARKERS},
        distinct=len(texts),
        extremes={what: _written(value) for what, value in found.items()},
    )


def value(text: str, kind: str) -> Any:
    """Return what a text of a column of that type stands for; equal for two texts that are equal in the type.

    Args:
        text: has a shape that fits in the type.
        kind: int, bigint, decimal(...), date, timestamp or string.
    """
    if kind == "string":
        return text
    return _looked_at(text).moment if kind in ("date", "timestamp") else Decimal(text)


def shape(text: str) -> str:
    """Return what a text looks like: a key of `shapes.FITTING`'s sets, or "text".

    Raises:
        OnlySparkKnows: see there.
    """
    return _looked_at(text).shape


def _looked_at(text: str) -> _Text:
    if _NUMBER.fullmatch(text):
        return _number(text)
    if _CODE.match(text):
        return _Text("text")
    if _DAY.fullmatch(text):
        return _moment(text, "date")
    if _MOMENT.match(text):
        if not _PLAIN_MOMENT.fullmatch(text):
            raise OnlySparkKnows(text)
        return _moment(text, "timestamp")
    return _Text("boolean" if _BOOLEAN.fullmatch(text) else "text")


def _number(text: str) -> _Text:
    number = float(text)
    digits = _DIGITS.match(text)
    assert digits is not None
    has_exponent = "e" in text or "E" in text
    whole = DECIMAL_DIGITS + 1 if has_exponent else len(digits[1])
    if _WHOLE.fullmatch(text):
        value = int(text) if whole < 20 else 2**64
        kind = "int" if -(2**31) <= value < 2**31 else "bigint" if -(2**63) <= value < 2**63 else "long"
        return _Text(kind, number, whole)
    fraction = len(digits[2] or "")
    if not has_exponent and whole + fraction > DOUBLE_DIGITS:
        return _Text("long", number, whole, fraction)
    return _Text("number" if abs(number) < float("inf") else "text", number, whole, fraction)


def _moment(text: str, kind: str) -> _Text:
    try:
        # Six digits of a second, which fromisoformat of every Python takes.
        seconds, _, fraction = text.partition(".")
        moment = datetime.fromisoformat(f"{seconds}.{fraction:0<6}" if fraction else seconds)
    except ValueError:
        return _Text("text")
    return _Text(kind, moment=moment)


def _widen(found: dict[str, Any], what: str, value: Any) -> None:
    """Have the extremes of `what` take in a value."""
    least, most = found[f"min_{what}"], found[f"max_{what}"]
    found[f"min_{what}"] = value if least is None or value < least else least
    found[f"max_{what}"] = value if most is None or value > most else most


def _written(value: Any) -> Any:
    """Return a day or moment as Spark writes it: without zeros at the end of a second's fraction."""
    if isinstance(value, datetime):
        text = value.isoformat(sep=" ")
        return text.rstrip("0") if value.microsecond else text
    return value.isoformat() if isinstance(value, date) else value
