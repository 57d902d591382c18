"""A comparison of versions as one HTML file: tables and calibration. Runs anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlspark.reports import page
from mlspark.reports.class_section import Drawing
from mlspark.reports.histogram_plot import HEIGHT, WIDTH

GOOD, BAD, PLAIN = "better", "worse", ""


@dataclass(frozen=True)
class Cell:
    """A text of a table."""

    text: str
    kind: str = PLAIN
    """GOOD or BAD where more than chance speaks for it."""


@dataclass(frozen=True)
class ReportTable:
    """A table for people, on the page and in the terminal."""

    title: str
    columns: tuple[str, ...]
    """Heads; the first is that of the rows' names."""
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """What stands below it."""


def render(
    title: str, about: Sequence[tuple[str, str]], tables: Sequence[ReportTable], drawings: Sequence[Drawing]
) -> str:
    """Return the page.

    Args:
        title: of the page.
        about: facts on top: title and text.
        tables: in their order.
        drawings: calibration of each version.
    """
    return page.render(
        "comparison.html.jinja",
        title=title,
        about=about,
        tables=tables,
        drawings=drawings,
        plot_size=(f"{WIDTH:.0f}", f"{HEIGHT:.0f}"),
    )
