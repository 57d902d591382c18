"""`mlspark explain`: what a version predicts of single rows, and what each raw column adds to it. Driver."""

import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlspark import storage
from mlspark.commands import options, output_file, source_arguments, version_argument
from mlspark.errors import ConfigError
from mlspark.scoring.settings import ScoringSettings
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.sources.catalog import READERS
from mlspark.sources.csv import CsvSettings
from mlspark.sources.settings import SourceSettings
from mlspark.tracking.settings import TrackingSettings

if TYPE_CHECKING:
    from mlspark.registry.versions import ModelVersion
    from mlspark.stages.explanation import RawRows

app = options.app()

MOST_ON_PAGE = 60
"""Rows that a page shows."""
_JSON = (".json", ".jsonl", ".ndjson")


@app.command()
def explain(
    version: Annotated[
        str, typer.Argument(metavar="NAME[/VERSION|@ALIAS]", help="The version; NAME alone: that of scoring.model.")
    ],
    rows: Annotated[
        str,
        typer.Argument(
            metavar="[ROWS]",
            help="Raw rows: JSON as MLflow takes it, a file or folder of any source, - for JSON on standard input; "
            "else scoring.source of --config.",
        ),
    ] = "",
    config: options.Config = [],  # noqa: B006 (typer copies it)
    set_: options.Overrides = None,
    row_id: Annotated[
        str, typer.Option(metavar="ID,ID", help="row_id of rows of the source, as in the score table.")
    ] = "",
    most: Annotated[int, typer.Option("--rows", min=0, help="Rows of the source, the first ones; 0: all.")] = 20,
    top: Annotated[int, typer.Option(min=1, help="Columns that are printed of each row, those that add most.")] = 8,
    json_file: options.JsonFile = None,
    page: Annotated[
        str | None, typer.Option(metavar="FILE", help=f"Page to write: the first {MOST_ON_PAGE} rows, with pictures.")
    ] = None,
) -> None:
    """Show what a registered version predicts of rows, and what each raw column adds; of refused rows, why."""

    run(version, rows, files=config, overrides=set_ or (), row_id=row_id, most=most, top=top, json_file=json_file,
        page_file=page)  # fmt: skip


def run(
    version: str,
    rows: str = "",
    *,
    files: Sequence[str] = (),
    overrides: Sequence[str] = (),
    row_id: str = "",
    most: int = 20,
    top: int = 8,
    json_file: str | None = None,
    page_file: str | None = None,
) -> None:
    """Explain rows.

    Args:
        version: NAME/3, NAME@alias, or NAME for the version that scoring.model names, champion by default.
        rows: a file of JSON, a source, or "-"; empty: scoring.source.
        files: settings of the pipeline: where versions and tables are, how its CSV looks, its joins; without any, all is
            where the defaults have it.
        overrides: of settings.
        row_id: ids of rows of a source, with commas between them.
        most: rows of a source; 0: all.
        top: columns that are printed of each row.
        json_file: also write everything there.
        page_file: also write a page there.

    Raises:
        ConfigError: an option, a setting or the rows' file is wrong.
        RegistryError: there is no such version, or the rows that a network begins at are gone.
        MlsparkError: the source cannot be read, its columns are not the contract's, or the version is not explained.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    for option, file in (("--json", json_file), ("--page", page_file)):
        output_file.check(option, file)
    if overrides and not files:
        raise ConfigError(f"--set {overrides[0]}: settings of no pipeline; give --config, too")
    row_ids = version_argument.row_ids(row_id, option="--row-id")
    settings = loading.load(list(files), list(overrides)) if files else None
    in_use = settings.scoring.model if settings else ScoringSettings().model
    name, wanted = version_argument.parsed(version, "", str(in_use))
    wanted = in_use if name == version else wanted
    text = _json_text(rows) if rows else None
    if text is not None and row_ids:
        raise ConfigError("--row-id: names rows of a source, not of JSON; leave it out, and give those rows alone")
    if rows and text is None:
        _check_source(rows)
    if not rows and (settings is None or settings.scoring.source is None):
        raise ConfigError("ROWS: missing; give a file of rows, - for standard input, or --config with scoring.source")
    from mlspark.commands import explained_rows
    from mlspark.registry import versions  # takes seconds: torch, MLflow
    from mlspark.stages import explanation
    from mlspark.tracking import runs

    tracking = settings.tracking if settings else TrackingSettings(experiment="Default")
    root = settings.root if settings else storage.absolute(os.environ.get("MLSPARK_HOME") or ".mlspark")
    model = versions.find(
        runs.connect(tracking, root), name, wanted, retry_seconds=tracking.retry_seconds, remedy="give one of these"
    )
    allows = settings is not None and settings.scoring.allow_decoder
    of_version, baseline = explanation.explainer(model, root, allow_decoder=allows)
    raw = _of_json(text, rows) if text is not None else _of_source(model, rows, settings, row_ids, most)
    shown = explanation.explained(model, of_version, raw, baseline=baseline, num_maps=MOST_ON_PAGE if page_file else 0)
    explained_rows.show(shown, top=top)
    if json_file:
        text = json.dumps(explained_rows.to_json(shown), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        output_file.write("--json", json_file, text, what_stands="the first rows are above")
        typer.echo(f"wrote {json_file}")
    if page_file:
        page = explained_rows.page(shown, most=MOST_ON_PAGE, top=top)
        output_file.write("--page", page_file, page, what_stands="the first rows are above, without pictures")
        typer.echo(f"wrote {page_file}")


def _json_text(rows: str) -> str | None:
    """Return the text of rows in JSON; None where they are a source of another kind.

    Raises:
        ConfigError: the file cannot be read.
    """
    if rows == "-":
        return sys.stdin.read()
    if not rows.lower().endswith(_JSON):
        return None
    try:
        return Path(rows).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"byte {error.start + 1} is no UTF-8"
        raise ConfigError(f"ROWS {rows}: cannot be read ({reason})") from None


def _check_source(rows: str) -> None:
    """Refuse what is no source, before Spark starts.

    Raises:
        ConfigError: its kind cannot be told from its name, or there is no such local file or folder.
    """
    kind, _ = source_arguments.guess_kind(rows)
    is_local = READERS[kind].PLACE == "path" and "://" not in rows and not re.search(r"[*?\[{]", rows)
    if is_local and not Path(rows).exists():
        raise ConfigError(f"ROWS {rows}: no such file or folder")


def _of_json(text: str, rows: str) -> "RawRows":
    from mlspark.scoring import rows_of_json
    from mlspark.stages.explanation import RawRows

    parsed = rows_of_json.rows_of(text, f"ROWS {rows}")
    return RawRows(parsed, range(len(parsed)))


def _of_source(
    model: "ModelVersion", rows: str, settings: Settings | None, row_ids: Sequence[int], most: int
) -> "RawRows":
    """Return rows of a source, for which Spark starts."""
    from mlspark import session
    from mlspark.commands import interruption
    from mlspark.sources import catalog
    from mlspark.stages import explanation, score

    if rows:
        source, root = _source(model, rows, settings), os.getcwd()
    else:
        assert settings is not None, "checked before"
        assert settings.scoring.source is not None, "checked before"
        source, root = settings.scoring.source, settings.sources.root
    others = settings.all_sources.values() if settings else ()
    spark = session.start("mlspark explain", catalog.spark_settings([source, *others]))
    try:
        with interruption.raised(spark):
            of_joins = (settings.joins, settings.sources.root) if settings else ((), "")
            joins = score.needed_joins(spark, [model], of_joins[0], root=of_joins[1])
            return explanation.of_source(spark, model, source, joins, root=root, row_ids=row_ids, most=most)
    finally:
        session.stop(spark)


def _source(model: "ModelVersion", rows: str, settings: Settings | None) -> SourceSettings:
    """Return the settings of a source that is given by its name, for the rest those of the pipeline's source of its kind."""
    kind, _ = source_arguments.guess_kind(rows)
    known = (settings.scoring.source, settings.sources.learn) if settings else ()
    similar = next((each for each in known if each is not None and each.kind == kind), None)
    source = source_arguments.settings(rows, kind, [])
    if similar is not None:
        place = READERS[kind].PLACE
        source = similar.model_copy(update={place: getattr(source, place)})
    return _with_header(source, model) if isinstance(source, CsvSettings) else source


def _with_header(source: CsvSettings, model: "ModelVersion") -> CsvSettings:
    """Return settings that say whether the first line names columns, and whether the label is in the lines."""
    contract = model.package.contract
    try:
        with open(source.path, encoding="utf-8", errors="replace") as file:
            lines = (line for line in file if line.strip() and not (source.comment and line.startswith(source.comment)))
            first = next(lines, "")
    except OSError:  # a folder, a pattern, another scheme: as the settings say
        return source
    fields = [field.strip().strip('"') for field in first.split(source.separator)]
    if {*fields} & {*contract.names, *contract.names_by_header}:
        return source.model_copy(update={"header": True})
    return source.model_copy(update={"header": False, "has_label": len(fields) >= len(contract.columns)})
