"""A hyper-parameter search as one picture: what each trial reached, and with which values. Runs anywhere."""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_COLUMNS = 3
_INCHES = (4.2, 3.2)
_STYLES = {"complete": ("o", "tab:blue"), "pruned": ("x", "tab:gray")}
"""State of a trial -> marker and colour."""


@dataclass(frozen=True)
class Point:
    """A trial."""

    number: int
    state: str
    """complete, pruned, or another that has no objective."""
    objective: float | None
    values: Mapping[str, Any]
    """Parameter -> value; numbers are placed by size, all else side by side."""


def draw(
    title: str,
    objective: str,
    points: Sequence[Point],
    parameters: Mapping[str, str],
    *,
    is_minimized: bool,
    logarithmic: Collection[str] = (),
) -> bytes:
    """Return a PNG: objective by trial with the best so far, then objective by value of each parameter.

    Args:
        title: of the picture.
        objective: what it is called.
        points: by number.
        parameters: those to show -> what to call them.
        is_minimized: the best is the lowest.
        logarithmic: parameters with a logarithmic axis.
    """
    num_rows = -(-(1 + len(parameters)) // _COLUMNS)
    # No pyplot: it keeps global state and looks for a display.
    figure = Figure(figsize=(_COLUMNS * _INCHES[0], num_rows * _INCHES[1]), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(num_rows, _COLUMNS, squeeze=False).flatten()
    known = [point for point in points if point.objective is not None]
    history = panels[0]
    _scatter(history, known, [point.number for point in known])
    complete = [point for point in known if point.state == "complete"]
    reached = np.array([point.objective for point in complete], np.float64)
    bests = (np.minimum if is_minimized else np.maximum).accumulate(reached)
    history.step([point.number for point in complete], bests, where="post", color="tab:orange", label="best so far")
    history.xaxis.set_major_locator(MaxNLocator(integer=True))
    history.set_xlabel("trial")
    history.set_ylabel(objective)
    history.legend(fontsize="small")
    for panel, (name, called) in zip(panels[1:], parameters.items(), strict=False):
        values = [point.values[name] for point in known]
        is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        _scatter(panel, known, values if is_number else [str(value) for value in values])
        if name in logarithmic:
            panel.set_xscale("log")
            panel.tick_params(axis="x", which="minor", labelsize=6, labelrotation=45)
        panel.set_xlabel(called)
    for panel in panels[1 + len(parameters) :]:
        panel.set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _scatter(panel: Axes, points: Sequence[Point], places: Sequence[Any]) -> None:
    heights = np.array([point.objective for point in points], np.float64)
    panel.scatter(places, heights, alpha=0.0)  # all at once, so that both states share one order of categories
    for state, (marker, color) in _STYLES.items():
        chosen = [number for number, point in enumerate(points) if point.state == state]
        if chosen:
            panel.scatter([places[n] for n in chosen], heights[chosen], marker=marker, color=color, label=state)
    panel.grid(alpha=0.3)
