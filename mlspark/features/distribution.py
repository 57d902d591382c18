"""What a profile's record says of one column: its kind, and how many of its values are up to a bound. Runs anywhere."""

import bisect
import math
from collections.abc import Mapping
from typing import Any

_WHOLE = ("tinyint", "smallint", "int", "bigint", "date")


def kind(type_: str) -> str:
    """Return how a column of a contract's type is profiled: "number", "time", "text", or "array" (counted only).

    Bytes are counted only, too.
    """
    if type_ in ("string", "boolean"):
        return "text"
    if type_ in ("date", "timestamp"):
        return "time"
    return "array" if type_.startswith("array") or type_ == "binary" else "number"


def is_whole(type_: str) -> bool:
    """Return whether all values are whole numbers: of days, for a date."""
    return type_ in _WHOLE or (type_.startswith("decimal") and type_.endswith(",0)"))


def values_up_to(column: Mapping[str, Any], bound: float, *, below: bool = False) -> float:
    """Return how many values are at most `bound`, or with `below` less than it.

    Exact at the record's points; between two of them, at most 1 % of the values apart, the values are taken to be spread
    evenly (over the whole numbers strictly between, where there are only such).

    Args:
        column: record of a number or time with values; see `profile`.
        bound: in the column's own unit, days for a time.
        below: leave out values equal to `bound`.
    """
    points = column["points"]
    find = bisect.bisect_left if below else bisect.bisect_right
    place = find(points, bound, key=lambda point: point[0]) - 1
    if place < 0:
        return 0.0
    if place == len(points) - 1:
        return float(column["count"])
    (low, _, upto), (high, above, _) = points[place], points[place + 1]
    if above == upto:
        return float(upto)
    half = 0.0
    if is_whole(column["type"]):
        half, bound = 0.5, math.ceil(bound) - 0.5 if below else math.floor(bound) + 0.5
    # Halves, so that the distance of two doubles is one.
    width = (high - half) * 0.5 - (low + half) * 0.5
    share = (bound * 0.5 - (low + half) * 0.5) / width if width > 0 else 1.0
    return float(upto + min(max(share, 0.0), 1.0) * (above - upto))
