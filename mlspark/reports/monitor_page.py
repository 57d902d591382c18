"""Monitoring of scored rows as one HTML file: alarms, figures with their limits, columns drawn. Runs anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlspark.reports import page
from mlspark.reports.histogram_plot import HEIGHT, WIDTH
from mlspark.reports.profile_page import ColumnViews, Version
from mlspark.reports.wording import count, number, percent, rate
from mlspark.tasks.metrics import title as metric_title

Record = Mapping[str, Any]

TITLES = {
    "input": "Columns",
    "score": "Scores",
    "label": "Labels",
    "performance": "Performance",
    "quarantine": "Quarantine",
}
MEASURES = {
    "psi": "PSI",
    "missing_change": "change of missing share",
    "unseen_share": "unseen values",
    "metric_loss": "worse by",
    "quarantined_increase": "increase of quarantined share",
}


_SIDES = ["training", "scored"]


@dataclass(frozen=True)
class Section:
    """Columns of one subject on both sides."""

    subject: str
    """One of "input", "score" and "label"."""
    old: Record
    """"rows" and "columns" of the training side."""
    new: Record
    comparison: Record
    """Of the two, by `mlspark.features.drift.compare`."""


@dataclass(frozen=True)
class CheckRow:
    """A comparison as the page shows it."""

    verdict: str
    subject: str
    name: str
    anchor: str
    """Id of its card; empty where it has none."""
    measure: str
    value: str
    limit: str
    by_chance: str
    old: str
    new: str
    detail: str


@dataclass(frozen=True)
class MetricRow:
    name: str
    kept: str
    now: str


def render(name: str, result: Record, sections: Sequence[Section]) -> str:
    """Return the page of a result.

    Args:
        name: of the pipeline.
        result: of one commit of the score table; see docs/monitoring.md.
        sections: columns that are drawn.
    """
    drawn = {column for section in sections for column in section.new["columns"]}
    return page.render(
        "monitor.html.jinja",
        title=f"{name}: scores version {result['score_version']}",
        table=result["scores"],
        summary=_summary(result),
        alarms=result["alarms"],
        checks=[_check(check, drawn) for check in result["checks"]],
        not_compared=[(TITLES[each["subject"]], each["reason"]) for each in result["not_compared"]],
        metrics=_metrics(result["metrics"]),
        kept_title=f"{result['kept']['split']} rows of training" if result["kept"] else "",
        sections=[(TITLES[section.subject], _views(section)) for section in sections],
        versions=_SIDES,
        is_compared=True,
        has_rates=False,
        plot_size=(f"{WIDTH:.0f}", f"{HEIGHT:.0f}"),
    )


def _views(section: Section) -> ColumnViews:
    """Return the columns of a section as cards, the one that changed most first."""
    none = {"target": {"column": None}}
    sides = zip((section.old, section.new), _SIDES, strict=True)
    old, new = (Version(0, {**record, **none}, title=title) for record, title in sides)
    return ColumnViews(new, old, section.comparison)


def _summary(result: Record) -> list[tuple[str, str]]:
    training, kept, labels = result["training"], result["kept"], result["labels"]
    rows = [
        ("Model", f"{result['model_name']} version {result['model_version']}"),
        ("Rows scored", count(result["rows_scored"])),
        ("Rows quarantined", _of(result["rows_quarantined"], result["rows_read"])),
        ("Trained on", f"{count(training['rows'])} rows, version {training['version']} of {training['table']}"),
        ("Quarantined there", _of(training["rows_quarantined"], training["rows_read"])),
    ]
    if kept:
        rows.append(("Scores compared with", f"{count(kept['rows'])} {kept['split']} rows"))
    if labels:
        rows.append(("Rows with a label", _of(labels["labelled"], labels["scored"])))
        words = {
            "without_score": "Labels of no scored row",
            "no_class": "Labels that are no class",
            "bad_rows": "Bad labels",
        }
        rows += [(title, count(labels[key])) for key, title in words.items() if labels.get(key)]
    return rows


def _of(part: int, whole: int) -> str:
    return f"{count(part)} of {count(whole)} ({rate(part, whole)})"


def _check(check: Record, drawn: set[str]) -> CheckRow:
    is_metric, is_psi = check["measure"] == "metric_loss", check["measure"] == "psi"
    show = number if is_metric else percent
    value, limit = (f"{figure:.3f}" if is_psi else percent(figure) for figure in (check["value"], check["limit"]))
    sides = [
        "" if check[side] is None else f"{show(check[side])} {_interval(check[f'{side}_interval'], show)}"
        for side in ("old", "new")
    ]
    p_value = check["p_value"]
    return CheckRow(
        verdict=check["verdict"],
        subject=TITLES[check["subject"]],
        name=metric_title(check["name"]) if is_metric else check["name"],
        anchor=f"column-{check['name']}" if check["name"] in drawn else "",
        measure=MEASURES[check["measure"]],
        value=value,
        limit=limit,
        by_chance="" if p_value is None else f"{p_value:.2g} (alarm up to {check['level']:.2g})",
        old=sides[0],
        new=sides[1],
        detail=check["detail"],
    )


def _interval(interval: Sequence[float] | None, show: Any) -> str:
    return "" if interval is None else f"[{show(interval[0])}, {show(interval[1])}]"


def _metrics(metrics: Record | None) -> list[MetricRow]:
    if metrics is None:
        return []
    kept, now = metrics["kept"] or {}, metrics["now"]
    names = [name for name in now if f"{name}_interval" in now]
    return [MetricRow(metric_title(name), _metric(kept, name), _metric(now, name)) for name in names]


def _metric(metrics: Record, name: str) -> str:
    if metrics.get(name) is None:
        return ""
    return f"{number(metrics[name])} {_interval(metrics[f'{name}_interval'], number)}"
