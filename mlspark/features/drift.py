"""How the rows of one version differ from those of another, computed from their records alone. Runs anywhere.

PSI, the population stability index: sum of (new - old) * ln(new / old) over bins, with the limits 0.1 and 0.25 that are
usual in credit scoring (N. Siddiqi, Credit Risk Scorecards, 2006; B. Yurdakul and J. Naranjo, Statistical properties
of the population stability index, Journal of Risk Model Validation 14(4), 2020: it grows with the number of bins and with
few rows). Jensen-Shannon distance: square root of the divergence of J. Lin (IEEE Trans. Inf. Theory 37(1), 1991) to base 2,
0 for equal shares, 1 for shares without a bin in common; a metric (D. Endres and J. Schindelin, IEEE Trans. Inf. Theory
49(7), 2003).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlspark.errors import FeatureError
from mlspark.features.distribution import kind, values_up_to

MODERATE, LARGE = 0.1, 0.25
"""PSI from which a column's drift is moderate, large."""

VERDICTS = ("retyped", "large", "moderate", "stable")
"""Verdicts on a column, the gravest first."""

_SMOOTHING = 0.5
_DECILES = ("10", "20", "30", "40", "50", "60", "70", "80", "90")

Record = Mapping[str, Any]


def compare(old: Record, new: Record) -> dict[str, Any]:
    """Return how `new` differs from `old`, JSON-able; both are records of `profile`.

    A column's rows are binned: a number's or time's at the deciles of `old` (fewer bins where deciles are equal), a text's
    by value (those that one of the two does not name, having more than 50, together), and missing values are a bin, too.
    For PSI half a row is added to each bin of either side (as R. Krichevsky and V. Trofimov estimate shares, IEEE Trans.
    Inf. Theory 27(2), 1981), so that an empty bin has a logarithm; the distance is of the shares as they are. The new rows
    up to a decile of the old are known to within 1 % of them; see `distribution.values_up_to`.

    Returns:
        "limits" of PSI for verdicts, "rows" and "label_rate" (share of rows of the event class, absent where a record has
        none) {"old", "new", "change"}, "added", "removed" (columns of one only), "columns" {name: ...} of both, each with
        "verdict": "stable", "moderate" (PSI 0.1 or more), "large" (0.25 or more), or "retyped" (nothing to compare),
        "psi", "js_distance" (0 to 1), or None when retyped,
        "missing_share_change": of all rows, new - old,
        "mean_shift" of a number or time, in standard deviations of the old; None where the old has none,
        "channels" of pictures: {"grey", "red", "green", "blue": Jensen-Shannon distance of the pixels' values},
        "unseen" of a text: {"values" [[value, rows], ...] named in new, not in old; "share" of all new rows;
        "is_certain": False when old has values that it does not name, of which they may be}.

    Raises:
        FeatureError: one of both has no rows.
    """
    for name, record in (("old", old), ("new", new)):
        if not record["rows"]:
            raise FeatureError(f"the {name} profile has no rows: there is nothing to compare")
    columns = {name: _compare(old, new, name) for name in new["columns"] if name in old["columns"]}
    return {
        "limits": {"moderate": MODERATE, "large": LARGE},
        "rows": _change(old["rows"], new["rows"]),
        **_label_rate(old, new),
        "added": [name for name in new["columns"] if name not in old["columns"]],
        "removed": [name for name in old["columns"] if name not in new["columns"]],
        "columns": columns,
    }


def gravest_first(comparison: Record) -> list[tuple[str, Record]]:
    """Return the columns of both and how they differ, by verdict, then by PSI."""
    return sorted(
        comparison["columns"].items(),
        key=lambda item: (VERDICTS.index(item[1]["verdict"]), -(item[1]["psi"] or 0.0)),
    )


def bins(before: Record, after: Record) -> list[tuple[float, float]]:
    """Return the rows of each bin of a column, (old, new), as `compare` bins it: of two records of the same kind."""
    of_kind = kind(after["type"])
    found: list[tuple[float, float]] = [(before["count"], after["count"])]
    if of_kind == "text":
        found = _text_bins(before, after)
    elif of_kind != "array":
        found = _number_bins(before, after)
    return [*found, (before["nulls"], after["nulls"])] if before["nulls"] or after["nulls"] else found


def psi(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the population stability index of the rows per bin, smoothed by half a row for each bin."""
    olds, news = _shares(old, _SMOOTHING), _shares(new, _SMOOTHING)
    return sum((after - before) * math.log(after / before) for before, after in zip(olds, news, strict=True))


def js_distance(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the Jensen-Shannon distance, base 2, of the rows per bin; each side has rows."""
    divergence = 0.0
    for pair in zip(_shares(old), _shares(new), strict=True):
        middle = sum(pair) / 2
        divergence += sum(share * math.log2(share / middle) / 2 for share in pair if share > 0)
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def _shares(bins: Sequence[float], pseudocount: float = 0.0) -> list[float]:
    total = sum(bins) + pseudocount * len(bins)
    return [(rows + pseudocount) / total for rows in bins]


def _label_rate(old: Record, new: Record) -> dict[str, Any]:
    if "events" not in old or "events" not in new:
        return {}
    return {"label_rate": _change(old["events"] / old["rows"], new["events"] / new["rows"])}


def _change(old: float, new: float) -> dict[str, float]:
    return {"old": old, "new": new, "change": new - old}


def _compare(old: Record, new: Record, name: str) -> dict[str, Any]:
    before, after = old["columns"][name], new["columns"][name]
    missing = after["nulls"] / new["rows"] - before["nulls"] / old["rows"]
    of_kind = kind(after["type"])
    if kind(before["type"]) != of_kind:
        return {"verdict": "retyped", "psi": None, "js_distance": None, "missing_share_change": missing}
    figures: dict[str, Any] = {}
    if of_kind == "text":
        figures["unseen"] = _unseen(before, after, new["rows"])
    elif of_kind != "array":
        figures["mean_shift"] = _mean_shift(before, after)
    elif "pictures" in before and "pictures" in after:
        figures["channels"] = _channels(before["pictures"]["values"], after["pictures"]["values"])
    olds, news = zip(*bins(before, after), strict=True)
    index = psi(olds, news)
    return {
        "verdict": "large" if index >= LARGE else "moderate" if index >= MODERATE else "stable",
        "psi": index,
        "js_distance": js_distance(olds, news),
        "missing_share_change": missing,
        **figures,
    }


def _number_bins(old: Record, new: Record) -> list[tuple[float, float]]:
    if not old["count"] or not new["count"]:
        return [(old["count"], new["count"])]
    edges = sorted({old["quantiles"][percent] for percent in _DECILES})
    sides = []
    for column in (old, new):
        upto = [0.0, *(values_up_to(column, edge) for edge in edges), column["count"]]
        sides.append([high - low for low, high in itertools.pairwise(upto)])
    return list(zip(*sides, strict=True))


def _text_bins(old: Record, new: Record) -> list[tuple[float, float]]:
    """Return the rows of each value whose rows are known on both sides, then of all others."""
    olds, news = ({value: rows for value, rows, _ in column["values"]} for column in (old, new))
    known = [
        value
        for value in dict.fromkeys([*olds, *news])
        if (value in olds or _names_all(old)) and (value in news or _names_all(new))
    ]
    bins: list[tuple[float, float]] = [(olds.get(value, 0), news.get(value, 0)) for value in known]
    others = (old["count"] - sum(bin_[0] for bin_ in bins), new["count"] - sum(bin_[1] for bin_ in bins))
    return [*bins, others] if any(others) or not bins else bins


def _names_all(text: Record) -> bool:
    return bool(text["distinct"] == len(text["values"]))


def _channels(old: Record, new: Record) -> dict[str, float]:
    """Return the distance of each channel of pictures, where both have pixels: no PSI, as those of a picture are alike."""
    both = (channel for channel in new if any(old.get(channel, ())) and any(new[channel]))
    return {channel: js_distance(old[channel], new[channel]) for channel in both}


def _unseen(old: Record, new: Record, num_rows: int) -> dict[str, Any]:
    known = {value for value, _, _ in old["values"]}
    values = [[value, rows] for value, rows, _ in new["values"] if value not in known]
    return {"values": values, "share": sum(rows for _, rows in values) / num_rows, "is_certain": _names_all(old)}


def _mean_shift(old: Record, new: Record) -> float | None:
    if not old["count"] or not new["count"]:
        return None
    shift = new["mean"] - old["mean"]
    if not shift:
        return 0.0
    return float(shift / old["std"]) if old["std"] and math.isfinite(shift / old["std"]) else None
