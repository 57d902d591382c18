"""Values of data and figures as a person reads them, as plain text. Runs anywhere."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mlspark.features.distribution import kind

MAX_CHARACTERS = 60


def visible(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return `text` cut to `limit` characters; what cannot be seen, or turns the line round, as its code."""
    cut = text if len(text) <= limit else text[: limit - 1] + "\u2026"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def count(value: int) -> str:
    return f"{value:,}"


def rate(part: int, whole: int) -> str:
    return f"{part / max(whole, 1) * 100:.2f} %"


def percent(share: float) -> str:
    """Return a share for a person; "0 %" and "100 %" are exactly that."""
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    return f"{share * 100:.2f} %" if abs(share) < 0.0005 else f"{share * 100:.1f} %"


def signed(value: float, digits: int) -> str:
    return f"{value:+,.{digits}f}"


def number(value: float) -> str:
    """Return a number in four digits or, if whole, in all."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 15 or size < -4:
        return f"{value:.3e}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 3 - size)}f}"


def quantity(column: Mapping[str, Any], value: float) -> str:
    """Return a value of a number or time column.

    Args:
        column: its record in a profile.
        value: in the column's unit, days since 1970-01-01 UTC for a time.
    """
    if kind(column["type"]) == "number":
        return number(value)
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value)
    except OverflowError:
        return f"day {number(value)}"
    if column["type"] == "date":
        return moment.date().isoformat()
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="minutes")


def newest_first(texts: list[str]) -> str:
    """Return the texts of versions, the older first, as "now, before then"."""
    return ", before ".join(reversed(texts))
