"""`mlspark profile`: what the rows of a feature table's version hold, or how they differ from another's. Needs no Spark."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark import config, storage, tables
from mlspark.errors import ConfigError, TableError
from mlspark.features import drift
from mlspark.features.distribution import kind
from mlspark.preparation import prepared as preparations
from mlspark.reports import profile_page
from mlspark.reports.profile_page import Version
from mlspark.tables import Commit

_LEAST_TOLD = 0.0005  # change of a share that does not round to 0.0 %


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
        if file and not Path(file).resolve().parent.is_dir():
            raise ConfigError(f"{option} {file}: the folder does not exist")
    settings = config.load(list(files), list(overrides))
    table = settings.table("features")
    shown = _read(table, preparations.commit_at(table, version))
    result = {"table": table, "version": shown.version, "profile": shown.record}
    old, comparison = None, None
    if against is not None:
        old = _read(table, preparations.commit_at(table, against))
        comparison = drift.compare(old.record, shown.record)
        result |= {"against": {"version": old.version, "profile": old.record}, "comparison": comparison}
    show(Console(), table, shown, against=old, comparison=comparison)
    written = []
    if html_file:
        page = profile_page.render(settings.name, table, shown, against=old, comparison=comparison)
        written.append(_write(html_file, page))
    if json_file:
        written.append(_write(json_file, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"))
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
        rows, positive = version.record["rows"], version.record["positive"]
        console.print(Text(f"{table} version {version.version}: {rows:,} rows, {_rate(positive, rows)} positive"))
        for split, found in version.record["splits"].items():
            console.print(
                Text(f"  {split}: {found['rows']:,} rows, {_rate(found['positive'], found['rows'])} positive")
            )
    console.print(_drifts(comparison) if comparison else _columns(shown.record))


def _columns(record: Mapping[str, Any]) -> Table:
    caption = "values: least, median, greatest; or number of different ones and the commonest"
    listed = Table("column", "type", "missing", "values", caption=caption, caption_justify="left")
    listed.columns[2].justify = "right"
    for name, column in record["columns"].items():
        missing = _rate(column["nulls"], record["rows"]) if column["nulls"] else ""
        told = Text(_values(column, record["rows"]), overflow="fold")
        listed.add_row(Text(name, overflow="fold"), Text(column["type"]), missing, told)
    return listed


def _values(column: Mapping[str, Any], num_rows: int) -> str:
    if not column["count"]:
        return "none"
    if kind(column["type"]) == "array":
        return ""
    if kind(column["type"]) == "text":
        value, rows, _ = column["values"][0]
        return f"{column['distinct']:,}, {profile_page.visible(value)} {_rate(rows, num_rows)}"
    quantiles = (profile_page.quantity(column, column["quantiles"][percent]) for percent in ("0", "50", "100"))
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
    for name, found in drift.gravest_first(comparison):
        shift, unseen = found.get("mean_shift"), found.get("unseen", {"values": []})
        listed.add_row(
            Text(name, overflow="fold"),
            found["verdict"],
            "" if found["psi"] is None else f"{found['psi']:.3f}",
            "" if found["js_distance"] is None else f"{found['js_distance']:.3f}",
            f"{found['missing_share_change'] * 100:+.1f} %"
            if abs(found["missing_share_change"]) >= _LEAST_TOLD
            else "",
            "" if shift is None else f"{shift:+.2f}",
            f"{unseen['share'] * 100:.1f} %" if unseen["values"] else "",
        )
    return listed


def _rate(part: int, whole: int) -> str:
    return f"{part / max(whole, 1) * 100:.1f} %"


def _read(table: str, commit: Commit) -> Version:
    uri = tables.sidecar(table, commit.metadata["id"], "profile.json")
    try:
        return Version(commit.version, storage.read_json(uri))
    except FileNotFoundError:
        raise TableError(
            f"{table}: version {commit.version} has no profile, as an older mlspark prepared it; "
            f"run jobs/prepare.py with the same config for a version that has one"
        ) from None


def _write(file: str, content: str) -> str:
    Path(file).write_text(content, encoding="utf-8")
    return f"wrote {file}"
