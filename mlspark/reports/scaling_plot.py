"""What a training takes on few and on many ranks, as one picture. Runs anywhere."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

_COLOURS = {"compute": "tab:blue", "cores": "tab:cyan", "reading": "tab:orange", "all-reduce": "tab:red"}


def draw(title: str, rows: Sequence[Mapping[str, Any]], *, currency: str, recommended: int | None) -> bytes:
    """Return a PNG: hours by ranks beside ranks of no loss, efficiency, and money where it is known.

    Args:
        title: of the picture.
        rows: as `stages.plan` has them under "ranks".
        currency: of the money.
        recommended: ranks that are marked; None: none.
    """
    ranks = [row["ranks"] for row in rows]
    panels: list[tuple[str, list[float]]] = [
        ("hours", [row["hours"] for row in rows]),
        ("efficiency", [row["efficiency"] for row in rows]),
    ]
    if rows[0]["money"] is not None:
        panels.append((currency, [row["money"] for row in rows]))
    figure = Figure(figsize=(4.4 * len(panels), 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, (name, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.plot(ranks, values, color="tab:gray", linewidth=1)
        for limit, colour in _COLOURS.items():
            places = [place for place, row in enumerate(rows) if row["limit"] == limit]
            if places:
                axes.scatter(
                    [ranks[p] for p in places], [values[p] for p in places], color=colour, label=limit, zorder=3
                )
        if name == "hours":
            axes.plot(ranks, [values[0] * ranks[0] / count for count in ranks], "k:", linewidth=1, label="no loss")
            axes.set_yscale("log")
        if recommended is not None:
            axes.axvline(recommended, color="tab:green", linewidth=1, label="recommended")
        axes.set(xlabel="ranks", title=name)
        axes.set_xscale("log", base=2)
    figure.axes[0].legend(fontsize="small", title="limit")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
