"""What the columns of a CSV file are, though some values be dirty: type, missing values, categories. Runs anywhere.

`contract infer` takes the narrowest type that all values have. Here a type is that of nearly all values: the others are
errors, whose rows the contract then quarantines.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from mlspark.contracts import column_types, plain_shapes
from mlspark.contracts.plain_shapes import OnlySparkKnows
from mlspark.contracts.shapes import FITTING, MARKERS

_FAMILIES = ("boolean", "decimal", "date", "timestamp")
CLEAN_SHARE = 0.95
"""Share of a column's values that decides its type."""
WHOLE_SHARE = 0.99
"""Share of a column's numbers from which on they are whole ones, and others are errors."""
_AMBIGUOUS = {"-", "--", ".", "None", "none"}
"""Markers that can be values of a text column."""
_ID_NAME = re.compile(r"(^|_)(id|uuid|guid|key|index|idx|row|rownum|nr)$", re.IGNORECASE)
_LONGEST_CATEGORY = 50
_KEY_SHARE = 0.98
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TRUTHS = {"true", "t", "yes", "y", "1", "false", "f", "no", "n", "0"}
"""Texts that Spark casts to booleans."""


@dataclass(frozen=True)
class Column:
    """What one column holds."""

    name: str
    """Name in the contract."""
    header: str
    """Name in the file."""
    type: str
    """boolean, int, bigint, double, date, timestamp or string."""
    markers: tuple[str, ...]
    """Texts in it that mark a missing value."""
    num_missing: int
    dirty: Mapping[str, int]
    """Value of another type -> rows that have it."""
    values: Mapping[str, int]
    """Clean value -> rows that have it."""
    num_rows: int

    @property
    def num_values(self) -> int:
        return sum(self.values.values())

    @property
    def distinct(self) -> int:
        return len(self.values)

    @property
    def is_number(self) -> bool:
        return self.type in ("int", "bigint", "double")

    @property
    def is_like_an_id(self) -> bool:
        """Whether it names rows, and says nothing about them."""
        if self.type not in ("int", "bigint", "string") or not self.values:
            return False
        if _ID_NAME.search(self.name):
            return self.distinct > min(50, self.num_values / 2)
        if self.distinct < self.num_values:
            return False
        if self.type == "string":
            return all(" " not in value for value in self.values)
        numbers = [int(value) for value in self.values]
        return max(numbers) - min(numbers) == len(numbers) - 1  # 1, 2, 3, ...

    @property
    def is_key(self) -> bool:
        """Whether it names each row, but for a few errors."""
        return self.is_like_an_id and self.num_missing == 0 and self.distinct >= _KEY_SHARE * self.num_values

    @property
    def is_free_text(self) -> bool:
        """Whether it is text that differs in most rows."""
        length = sum(len(value) * rows for value, rows in self.values.items()) / max(1, self.num_values)
        return self.type == "string" and (self.distinct > self.num_values / 2 or length > _LONGEST_CATEGORY)

    @property
    def is_skewed(self) -> bool:
        """Whether its skewness is beyond 2: a long tail, or errors far out."""
        numbers = [(float(value), rows) for value, rows in self.values.items()]
        total = self.num_values
        mean = math.fsum(number / total * rows for number, rows in numbers)
        largest = max(abs(number - mean) for number, _ in numbers) or 1.0
        second = math.fsum(((number - mean) / largest) ** 2 * rows for number, rows in numbers) / total
        third = math.fsum(((number - mean) / largest) ** 3 * rows for number, rows in numbers) / total
        return second > 0 and abs(third) / second**1.5 > 2

    def ordered_values(self) -> list[str]:
        """Return the clean values in ascending order of the type."""
        return sorted(self.values, key=float if self.is_number else str)


def of(name: str, header: str, texts: Sequence[str | None]) -> Column:
    """Return what the texts of a column are.

    Args:
        name: the column's in the contract.
        header: the column's in the file.
        texts: of its rows; None where a field is empty.
    """
    counts = Counter(text for text in texts if text is not None)
    shapes = {text: _shape(text) for text in counts if text not in MARKERS}
    kind, fitting = _type(shapes, counts)
    markers = [text for text in counts if text in MARKERS and (kind != "string" or text not in _AMBIGUOUS)]
    values = {
        text: rows
        for text, rows in counts.items()
        if text not in markers and (kind == "string" or text in fitting or _is_taken(text, kind))
    }
    dirty = {text: rows for text, rows in counts.items() if text not in values and text not in markers}
    missing = len(texts) - sum(values.values()) - sum(dirty.values())
    return Column(name, header, kind, tuple(sorted(markers)), missing, dirty, values, len(texts))


def _type(shapes: Mapping[str, str], counts: Mapping[str, int]) -> tuple[str, set[str]]:
    """Return the type of nearly all values, and the values that have it."""
    total = sum(counts[text] for text in shapes)
    families = {"number" if family == "decimal" else family: FITTING[family] for family in _FAMILIES}
    for family, allowed in families.items():
        fitting = {text for text, shape in shapes.items() if shape in allowed}
        if not fitting or sum(counts[text] for text in fitting) < CLEAN_SHARE * total:
            continue
        if family != "number":
            return family, fitting
        seen = Counter[str]()
        for text in fitting:
            seen[shapes[text]] += counts[text]
        if seen["long"] > total / 2:
            break  # more digits than a double holds: a name, not an amount
        for whole, allowed in (("int", FITTING["int"]), ("bigint", FITTING["bigint"])):
            if sum(seen[shape] for shape in allowed) >= WHOLE_SHARE * seen.total():
                return whole, {text for text in fitting if shapes[text] in allowed}
        return "double", fitting
    return "string", set(shapes)


def _is_taken(text: str, kind: str) -> bool:
    """Return whether a contract takes a text for a value of a type though it is not written as one: "007", "yes"."""
    if kind in ("int", "bigint"):
        bits = column_types.WHOLE_BITS[kind]
        return bool(re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII)) and -(2 ** (bits - 1)) <= int(text) < 2 ** (
            bits - 1
        )
    if kind == "double":
        return bool(_NUMBER.fullmatch(text)) and math.isfinite(float(text))
    if kind == "boolean":
        return text.lower() in _TRUTHS
    if parts := re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", text, re.ASCII):
        return kind == "date" and _is_moment("{}-{:0>2}-{:0>2}".format(*parts.groups()), date)
    return False


def _shape(text: str) -> str:
    """Return the shape of a text, see `plain_shapes.shape`; of moments that only Spark knows what Python makes of them."""
    try:
        return plain_shapes.shape(text)
    except OnlySparkKnows:
        return "timestamp" if _is_moment(text, datetime) else "text"


def _is_moment(text: str, kind: type[date]) -> bool:
    try:
        kind.fromisoformat(text)
    except ValueError:
        return False
    return True
