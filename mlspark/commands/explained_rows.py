"""Explained rows for people and programs: printed, as JSON, as a page. Runs anywhere."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark.commands import terminal
from mlspark.reports import explanation_page
from mlspark.reports.rows_section import Contribution, Examined, ExaminedRow
from mlspark.reports.wording import number, visible

if TYPE_CHECKING:
    from mlspark.stages.explanation import Added, Explained, ExplainedRow

_MOST_PRINTED = 20
_BAR = 20
"""Characters of the longest bar."""


def show(explained: "Explained", *, top: int) -> None:
    """Print the first rows and what is to be said of all.

    Args:
        explained: the rows.
        top: columns of each row, those that add most; the others are added up.
    """
    console = terminal.console()
    for row in explained.rows[:_MOST_PRINTED]:
        _print(console, row, top)
    if (others := len(explained.rows) - _MOST_PRINTED) > 0:
        console.print(Text(f"{others:,} further rows: --json FILE has them all"))
    for line in _about(explained):
        console.print(Text(line))


def _print(console: Console, row: "ExplainedRow", top: int) -> None:
    name = _name(row)
    if row.refused:
        console.print(Text(f"{name}: refused", style="bold"))
        for broken in row.refused:
            console.print(Text(f"  {broken}"))
        console.print()
        return
    console.print(Text(f"{name}: {_prediction(row)}", style="bold"))
    console.print(Text(f"  {row.explained} {_figure(row.output)}, from {_figure(row.baseline)}"))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for column in ("indent", "column", "value"):
        table.add_column(column, overflow="fold")
    table.add_column("adds", justify="right")
    table.add_column("bar", no_wrap=True)
    parts = [(part.name, _value(part), part.adds) for part in row.added[:top]]
    if others := row.added[top:]:
        parts.append((f"{len(others)} others", "", math.fsum(part.adds for part in others)))
    most = max((abs(adds) for *_, adds in parts), default=0.0) or 1.0
    for column, value, adds in parts:
        bar = ("+" if adds > 0 else "-") * round(abs(adds) / most * _BAR)
        style = "blue" if adds > 0 else "dark_orange"
        table.add_row("", Text(column), Text(visible(value, 40)), Text(_figure(adds, signed=True)), Text(bar, style))
    console.print(table)
    console.print()


def _about(explained: "Explained") -> Iterator[str]:
    """Yield what is to be said of all rows."""
    rows, model = explained.rows, explained.model
    refused = [row for row in rows if row.refused]
    reasons = Counter(broken.reason for row in refused for broken in row.refused)
    counted = f" ({', '.join(f'{reason} {count:,}' for reason, count in reasons.most_common())})" if reasons else ""
    yield f"{model.name} version {model.version}: {len(rows):,} rows, {len(refused):,} refused{counted}"
    predicted = [row for row in rows if not row.refused]
    if not predicted:
        return
    steps = [row.steps for row in predicted]
    path = f", {min(steps)} to {max(steps)} steps" if min(steps) < max(steps) else f", {max(steps)} steps" * any(steps)
    yield f"What columns add: {explained.method}{path}. They begin at {explained.baseline}."
    worst = max(predicted, key=lambda row: abs(row.error))
    yield (
        f"Baseline and all columns together differ from the number itself by at most {abs(worst.error):.1g} "
        f"({_name(worst)})."
    )


def to_json(explained: "Explained") -> dict[str, Any]:
    """Return all rows with all columns, as JSON values."""
    model = explained.model
    return {
        "model": model.name,
        "version": model.version,
        "sha256": model.package.digest,
        "method": explained.method,
        "baseline": explained.baseline,
        "rows": [_row(row) for row in explained.rows],
    }


def _row(row: "ExplainedRow") -> dict[str, Any]:
    named: dict[str, Any] = {"row": row.number} | ({} if row.row_id is None else {"row_id": row.row_id})
    if row.refused:
        reasons = [
            {"column": broken.column, "rule": broken.rule, "value": _plain(broken.value), "message": str(broken)}
            for broken in row.refused
        ]
        return named | {"refused": reasons}
    return named | {
        "prediction": {name: _plain(value) for name, value in row.prediction.items()},
        "explained": row.explained,
        "output": row.output,
        "baseline": row.baseline,
        "completeness_error": row.error,
        **({"steps": row.steps} if row.steps else {}),
        "contributions": [
            {
                "columns": list(part.columns),
                "values": [_plain(value) for value in part.values],
                "adds": part.adds,
            }
            for part in row.added
        ],
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; bytes as their SHA-256, and what JSON has not as text."""
    if isinstance(value, bytes):
        return f"sha256:{hashlib.sha256(value).hexdigest()}, {len(value)} bytes"
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.generic):
        return _plain(value.item())
    is_json = (
        value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    )
    return value if is_json else str(value)


def page(explained: "Explained", *, most: int, top: int) -> str:
    """Return the page of the first rows.

    Args:
        explained: the rows, with pictures and maps of the first `most` predicted ones.
        most: rows.
        top: see `show`.
    """
    explanation = explained.explanation
    shown, place = [], 0
    for row in explained.rows[:most]:
        if row.refused:
            shown.append(ExaminedRow(None, f"{_name(row)}: refused", tuple(map(str, row.refused))))
            continue
        shown.append(
            ExaminedRow(
                None,
                f"{_name(row)}: {_prediction(row)}",
                (f"{row.explained} {_figure(row.output)}, from {_figure(row.baseline)}",),
                pictures={name: values[place] for name, values in explanation.pictures.items()},
                maps={name: heat.values[place] for name, heat in explanation.maps.items()},
                contributions=[Contribution(part.name, part.adds, _value(part)) for part in row.added],
                start=row.baseline,
            )
        )
        place += 1
    notes = list(_about(explained))
    for method in dict.fromkeys(heat.method for heat in explanation.maps.values()):
        notes.append(f"Orange: the places of a picture that add most ({method}).")
    if len(explained.rows) > most:
        notes.append(f"Here are the first {most}.")
    examined = Examined("Rows", tuple(notes), tuple(shown))
    return explanation_page.render(
        f"{explained.model.name}: version {explained.model.version} explained", examined, top
    )


def _name(row: "ExplainedRow") -> str:
    return f"row {row.number}" if row.row_id is None else f"row {row.number}, row_id {row.row_id}"


def _prediction(row: "ExplainedRow") -> str:
    """Return the columns of a prediction in words; of many probabilities the greatest."""
    parts = []
    columns = dict(row.prediction)
    chances = {name: value for name, value in columns.items() if name.startswith("probability_")}
    if len(chances) > 3:
        best = max(chances, key=lambda name: chances[name])
        columns = {name: value for name, value in columns.items() if name not in chances} | {best: chances[best]}
    for name, value in columns.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(_plain(value))
        parts.append(f"{name} {visible(text)}")
    return ", ".join(parts)


def _value(part: "Added") -> str:
    texts = ["missing" if value is None else _text(value) for value in part.values]
    return ", ".join(texts)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return number(value) if isinstance(value, float) and math.isfinite(value) else str(_plain(value))


def _figure(value: float, *, signed: bool = False) -> str:
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text if 0.001 <= abs(value) < 1000 else f"{value:+.3g}" if signed else f"{value:.3g}"
