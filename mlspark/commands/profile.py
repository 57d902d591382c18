"""`mlspark profile`: what the rows of a feature table's version hold, or how they differ from another's. Needs no Spark."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark import tables
from mlspark.commands import options, output_file, terminal
from mlspark.features import drift
from mlspark.features import prepared as preparations
from mlspark.features.distribution import kind
from mlspark.reports import picture_facts, profile_page, wording
from mlspark.reports.profile_page import Version
from mlspark.settings import loading
from mlspark.tables import Commit

_LEAST_SHOWN = 0.0005  # change of a share that does not round to 0.0 %

app = options.app()


@app.command()
def profile(
    config: options.Config,
    set_: options.Overrides = None,
    version: options.Version = None,
    against: Annotated[int | None, typer.Option(help="An older version to compare with.")] = None,
    html_file: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write the page.")] = None,
    json_file: options.JsonFile = None,
) -> None:
    """Show what a version's rows hold, or how they drifted from another version's."""

    run(config, overrides=set_ or (), version=version, against=against, html_file=html_file, json_file=json_file)


def run(
    files: Sequence[str],
    *,
    overrides: Sequence[str],
    version: int | None,
    against: int | None,
    html_file: str | None,
    json_file: str | None,
) -> None:
    """Print the profile of a version, or its drift from another, and write it where asked.

    Args:
        files: settings of the pipeline.
        overrides: of settings.
        version: of the feature table; None: the newest.
        against: the older version to compare with; None: no comparison.
        html_file: write the page there.
        json_file: write {"table", "version", "profile"} there, in a comparison also "against" {"version", "profile"}
            and "comparison".

    Raises:
        ConfigError: settings are wrong, or a file's folder does not exist.
        TableError: there is no such version, or it has no profile.
    """
    for option, file in (("--html", html_file), ("--json", json_file)):
        output_file.check(option, file)
    settings = loading.load(list(files), list(overrides))
    table = settings.table("features")
    shown = _read(table, preparations.commit_at(table, version))
    result = {"table": table, "version": shown.version, "profile": shown.record}
    old, comparison = None, None
    if against is not None:
        old = _read(table, preparations.commit_at(table, against))
        comparison = drift.compare(old.record, shown.record)
        result |= {"against": {"version": old.version, "profile": old.record}, "comparison": comparison}
    show(terminal.console(), table, shown, against=old, comparison=comparison)
    written = []
    if html_file:
        page = profile_page.render(settings.name, table, shown, against=old, comparison=comparison)
        written.append(_write("--html", html_file, page))
    if json_file:
        written.append(
            _write("--json", json_file, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        )
    for line in written:
        Console(soft_wrap=True).print(Text(line))


def show(
    console: Console,
    table: str,
    shown: Version,
    *,
    against: Version | None = None,
    comparison: Mapping[str, Any] | None = None,
) -> None:
    """Print the profile of a version, or its drift from `against`, for a person."""
    for version in filter(None, (shown, against)):
        target = version.record["target"]
        console.print(Text(f"{table} version {version.version}: {_counted(version.record, target)}"))
        for split, split_record in version.record["splits"].items():
            console.print(Text(f"  {split}: {_counted(split_record, target)}"))
        for name in picture_facts.columns(version.record):
            console.print(Text(f"  {picture_facts.line(version.record, name)}"))
    console.print(_drifts(comparison) if comparison else _columns(shown.record))


def _counted(counts: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    """Return rows, and the share of the event class where the task has one."""
    if "events" not in counts:
        return f"{counts['rows']:,} rows"
    return f"{counts['rows']:,} rows, {_rate(counts['events'], counts['rows'])} {target['column']} = {target['event']}"


def _columns(record: Mapping[str, Any]) -> Table:
    caption = "values: least, median, greatest; or number of different ones and the commonest"
    listed = Table("column", "type", "missing", "values", caption=caption, caption_justify="left")
    listed.columns[2].justify = "right"
    for name, column in record["columns"].items():
        missing = _rate(column["nulls"], record["rows"]) if column["nulls"] else ""
        values_text = Text(_values(column, record["rows"]), overflow="fold")
        listed.add_row(Text(name, overflow="fold"), Text(column["type"]), missing, values_text)
    return listed


def _values(column: Mapping[str, Any], num_rows: int) -> str:
    if not column["count"]:
        return "none"
    if kind(column["type"]) == "array":
        return ""
    if kind(column["type"]) == "text":
        value, rows, _ = column["values"][0]
        return f"{column['distinct']:,}, {wording.visible(value)} {_rate(rows, num_rows)}"
    quantiles = (wording.quantity(column, column["quantiles"][percent]) for percent in ("0", "50", "100"))
    return " .. ".join(quantiles)


def _drifts(comparison: Mapping[str, Any]) -> Table:
    limits = comparison["limits"]
    caption = (
        f"stable: PSI below {limits['moderate']}; large: from {limits['large']}. JS: Jensen-Shannon distance. "
        f"missing: change of their share. mean shift: in standard deviations"
    )
    listed = Table("column", "drift", "PSI", "JS", "missing", "mean shift", "unseen")
    listed.caption, listed.caption_justify = caption, "left"
    for column in listed.columns[2:]:
        column.justify = "right"
    for what in ("added", "removed"):
        for name in comparison[what]:
            listed.add_row(Text(name, overflow="fold"), what)
    for name, column_drift in drift.gravest_first(comparison):
        shift, unseen = column_drift.get("mean_shift"), column_drift.get("unseen", {"values": []})
        listed.add_row(
            Text(name, overflow="fold"),
            column_drift["verdict"],
            "" if column_drift["psi"] is None else f"{column_drift['psi']:.3f}",
            "" if column_drift["js_distance"] is None else f"{column_drift['js_distance']:.3f}",
            f"{column_drift['missing_share_change'] * 100:+.1f} %"
            if abs(column_drift["missing_share_change"]) >= _LEAST_SHOWN
            else "",
            "" if shift is None else f"{shift:+.2f}",
            f"{unseen['share'] * 100:.1f} %" if unseen["values"] else "",
        )
    return listed


def _rate(part: int, whole: int) -> str:
    return f"{part / max(whole, 1) * 100:.1f} %"


def _read(table: str, commit: Commit) -> Version:
    record, thumbnails = tables.read_sidecar(table, commit.metadata["id"], "profile.json"), {}
    if picture_facts.columns(record):
        thumbnails = tables.read_sidecar(table, commit.metadata["id"], "pictures.json")["thumbnails"]
    return Version(commit.version, record, thumbnails)


def _write(option: str, file: str, content: str) -> str:
    output_file.write(option, file, content, what_stands="the profile is above")
    return f"wrote {file}"
