"""Questions about many columns, and their answers, as `counting.count` takes and returns them. Runs anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

HALF_BITS = 20
"""Bits of the lower half of a number's place; the upper one has no more, up to 2^40."""
SPLITTER, MOST_SPLIT = 2.0**42 + 1, 1e290
"""Factor by which a double is split, which leaves 11 of its 53 significant bits; greatest number that is split."""
SUMS = ("high", "low", "high_high", "high_low", "low_low")
"""Sums of the halves of places and of their products, of which mean and variance are made."""


@dataclass(frozen=True)
class Number:
    """Asks what a number's values are."""

    sql: str
    """SQL of type double; null, NaN and infinities have no value."""
    step: float | None = None
    """Step to which values may be rounded, 1.0 for whole numbers, if all are less than 2^40 steps: then one pass is enough
    for their sums. None: two passes."""
    parts: tuple[int, ...] = ()
    """Numbers of equal parts of the sorted rows whose bounds are asked for."""
    exact: bool = False
    """Whether the bounds are of the values themselves, not of values rounded to 11 significant bits."""
    mode: bool = False
    """Whether the commonest value is asked for; of several, the least."""


@dataclass(frozen=True)
class Text:
    """Asks which values a text has."""

    sql: str
    """SQL of type string; null is no value."""
    min_count: int = 1
    """Least number of rows of a value that is named."""
    max_values: int = 100_000
    """Most values to name: the commonest, by code point among equally common ones."""
    folds: int = 0
    """Number of folds to count by as well; 0: none."""


@dataclass(frozen=True)
class Sums:
    """Asks for the sums of whole numbers that each row has an array of: exact, whatever the order of the rows."""

    sql: str
    """SQL of type array<bigint>; null adds nothing."""
    size: int
    """Elements of each array."""


@dataclass(frozen=True)
class NumberCounts:
    """What a number's values are."""

    count: int
    """Rows with a value."""
    nulls: int
    min: float = 0.0
    max: float = 0.0
    mean: float = 0.0
    std: float = 0.0
    """Population standard deviation."""
    mode: float | None = None
    steps: tuple[tuple[float, int, int], ...] = ()
    """(value, rows below it, rows up to it), ascending: all that the cuts need, and the least and the greatest."""

    def cuts(self, parts: int) -> list[float]:
        """Return the values that cut the sorted rows into `parts`, the ends included: shape (parts + 1,).

        Between two values linearly, as in numpy.quantile: Hyndman and Fan 1996, definition 7.
        """
        ranks = [Fraction((self.count - 1) * part, parts) for part in range(parts + 1)]
        values, place = [], 0
        for rank in ranks:
            low = rank.numerator // rank.denominator
            while self.steps[place][2] <= low:
                place += 1
            value = self.steps[place][0]
            if rank > low and self.steps[place][2] <= low + 1:
                following = self.steps[place + 1][0]
                value += float(rank - low) * (following - value)
            values.append(value)
        return values


@dataclass(frozen=True)
class TextCounts:
    """Which values a text has."""

    values: Mapping[str, int]
    """Named value -> rows, by code point."""
    events: Mapping[str, tuple[int, ...]]
    """Named value -> rows of each event."""
    nulls: int
    nulls_events: tuple[int, ...]
    """Rows of each event among those without a value."""
    rare: int
    """Rows of values that are not named."""
    rare_values: int
    """Different values that are not named."""
    too_many: int
    """Values that have enough rows but are not named, as there are too many."""
    by_fold: Mapping[str | None, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    """Value, None for missing -> fold -> (rows, rows of each event ...)."""


@dataclass(frozen=True)
class Counts:
    """What was asked for."""

    rows: int
    events: tuple[int, ...]
    """Rows that meet each of the conditions that were asked for."""
    numbers: Mapping[str, NumberCounts]
    texts: Mapping[str, TextCounts]
    folds: Mapping[tuple[int, int], tuple[int, ...]]
    """(number of folds, fold) -> (rows, rows of each event ...)."""
    sums: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Name -> sum of each element."""


def fold(row_hash: str, folds: int) -> str:
    """Return SQL of the fold, 0 to folds - 1, of a row by its hash: the same whatever other rows there are."""
    return f"CAST(pmod(xxhash64({row_hash}, 'fold'), {folds}) AS INT)"


def finite(sql: str) -> str:
    """Return SQL of a double that is null where `sql` is not finite, and 0.0 where it is -0.0."""
    return f"CASE WHEN abs({sql}) < double('infinity') THEN {sql} + 0.0D END"
