"""The part of an evaluation's page about single rows: the worst mistakes, or those that were asked for. Runs anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.reports import row_pictures
from mlspark.reports.pictures_section import Shown
from mlspark.reports.wording import number
from mlspark.tasks.metrics import title

MOST_COLUMNS = 8
"""Columns of a row that are shown: those that add most to its output, to either side."""


@dataclass(frozen=True)
class Contribution:
    """What a column adds to the explained number of a row."""

    column: str
    value: float
    encoded: str
    """What the model reads there, as text; empty for a picture."""
    words: str = ""
    """What that stands for."""


@dataclass(frozen=True)
class ExaminedRow:
    """A row that is looked at alone."""

    row_id: int | None
    """None where the title says which row it is."""
    title: str
    """What was true, and what was predicted."""
    lines: tuple[str, ...]
    """Figures of the row, in words."""
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Name -> pixels as the model reads them (C, H, W)."""
    maps: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Name of a picture -> where in it the explained number comes from, 0 to 1 (H, W)."""
    contributions: Sequence[Contribution] = ()
    start: float = 0.0
    """The explained number where no column adds anything."""


@dataclass(frozen=True)
class Examined:
    """Rows that are looked at alone, and how."""

    title: str
    notes: tuple[str, ...]
    rows: tuple[ExaminedRow, ...]


@dataclass(frozen=True)
class Bar:
    """A contribution, drawn from the middle: of -1 to 1 of the greatest."""

    column: str
    text: str
    share: float
    encoded: str
    words: str


@dataclass(frozen=True)
class RowCard:
    title: str
    lines: tuple[str, ...]
    pictures: tuple[Shown, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class RowsSection:
    title: str
    notes: tuple[str, ...]
    cards: tuple[RowCard, ...]
    has_pictures: bool
    has_bars: bool


def section(examined: Examined, most_columns: int = MOST_COLUMNS) -> RowsSection:
    """Return what is shown of the rows, of each so many columns and the sum of the others."""
    cards = tuple(_card(row, most_columns) for row in examined.rows)
    has_pictures, has_bars = any(card.pictures for card in cards), any(card.bars for card in cards)
    return RowsSection(examined.title, examined.notes, cards, has_pictures, has_bars)


def worth(importance: Mapping[str, Any]) -> RowCard:
    """Return what is shown of the importance of raw columns."""
    columns = importance["columns"]
    most = max((abs(each["importance"]) for each in columns), default=0.0) or 1.0
    bars = [
        Bar(
            ", ".join(each["columns"]),
            f"{each['importance']:+.4f}",
            each["importance"] / most,
            "[{:+.4f}, {:+.4f}]".format(*each["interval"]),
            "",
        )
        for each in columns
    ]
    line = (
        f"How much worse {title(importance['metric'])} is, {importance['value']:.4f} of {importance['rows']:,} "
        f"{importance['split']} rows, when the values of a raw column are shuffled among them: mean of "
        f"{importance['repeats']} shuffles, in brackets the interval of 95 % for other rows and shuffles."
    )
    return RowCard("", (line,), (), tuple(bars))


def _card(row: ExaminedRow, most_columns: int) -> RowCard:
    pictures = []
    for name, pixels in row.pictures.items():
        pictures.append(row_pictures.shown(pixels, f"{name}: {row.title}"))
        if name in row.maps:
            heated = row_pictures.heated(pixels, row.maps[name])
            pictures.append(row_pictures.shown(heated, f"{name}: where the prediction comes from"))
    known_by = () if row.row_id is None else (f"row_id {row.row_id}",)
    return RowCard(row.title, (*row.lines, *known_by), tuple(pictures), tuple(_bars(row, most_columns)))


def _bars(row: ExaminedRow, most_columns: int) -> list[Bar]:
    """Return the greatest contributions, then all others together."""
    if not row.contributions:
        return []
    ordered = sorted(row.contributions, key=lambda part: -abs(part.value))
    first, others = ordered[:most_columns], ordered[most_columns:]
    rest = sum(part.value for part in others)
    most = max(abs(first[0].value), abs(rest)) or 1.0
    bars = [_bar(part.column, part.value, most, part.encoded, part.words) for part in first]
    if others:
        bars.append(_bar(f"{len(others)} others", rest, most))
    return bars


def _bar(column: str, value: float, most: float, encoded: str = "", words: str = "") -> Bar:
    return Bar(column, f"{value:+.3f}" if abs(value) < 1000 else number(value), value / most, encoded, words)


def as_text(value: Any) -> str:
    """Return what a model reads of a column: an id, or a float in four digits."""
    return str(value) if isinstance(value, int) else number(float(value))
