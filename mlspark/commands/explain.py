"""`mlspark explain`: what a version predicts of single rows, and what each raw column adds to it. Driver."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mlspark import storage
from mlspark.commands import options, output_file, version_argument
from mlspark.errors import ConfigError
from mlspark.scoring import rows_of_json
from mlspark.scoring.settings import ScoringSettings
from mlspark.settings import loading
from mlspark.tracking.settings import TrackingSettings

app = options.app()

MOST_ON_PAGE = 60
"""Rows that a page shows."""


@app.command()
def explain(
    version: Annotated[
        str, typer.Argument(metavar="NAME[/VERSION|@ALIAS]", help="The version; NAME alone: that of scoring.model.")
    ],
    rows: Annotated[
        str,
        typer.Argument(metavar="ROWS", help="File of raw rows in JSON, as MLflow takes them; - for standard input."),
    ],
    config: options.Config = [],  # noqa: B006 (typer copies it)
    set_: options.Overrides = None,
    top: Annotated[int, typer.Option(min=1, help="Columns that are printed of each row, those that add most.")] = 8,
    json_file: options.JsonFile = None,
    page: Annotated[
        str | None, typer.Option(metavar="FILE", help=f"Page to write: the first {MOST_ON_PAGE} rows, with pictures.")
    ] = None,
) -> None:
    """Show what a registered version predicts of rows, and what each raw column adds; of refused rows, why."""

    run(version, rows, files=config, overrides=set_ or (), top=top, json_file=json_file, page_file=page)


def run(
    version: str,
    rows: str,
    *,
    files: Sequence[str] = (),
    overrides: Sequence[str] = (),
    top: int = 8,
    json_file: str | None = None,
    page_file: str | None = None,
) -> None:
    """Explain rows.

    Args:
        version: NAME/3, NAME@alias, or NAME for the version that scoring.model names, champion by default.
        rows: a file of JSON, or "-" for standard input.
        files: settings of the pipeline: where versions and tables are; without any, where the defaults have them.
        overrides: of settings.
        top: columns that are printed of each row.
        json_file: also write everything there.
        page_file: also write a page there.

    Raises:
        ConfigError: an option, a setting or the rows' file is wrong.
        RegistryError: there is no such version, or the rows that a network begins at are gone.
        AttributionError: the version is not explained.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    for option, file in (("--json", json_file), ("--page", page_file)):
        output_file.check(option, file)
    if overrides and not files:
        raise ConfigError(f"--set {overrides[0]}: settings of no pipeline; give --config, too")
    settings = loading.load(list(files), list(overrides)) if files else None
    in_use = settings.scoring.model if settings else ScoringSettings().model
    name, wanted = version_argument.parsed(version, "", str(in_use))
    wanted = in_use if name == version else wanted
    parsed = rows_of_json.rows_of(_text(rows), f"ROWS {rows}")
    from mlspark.commands import explained_rows
    from mlspark.registry import versions  # takes seconds: torch, MLflow
    from mlspark.stages import explanation
    from mlspark.tracking import runs

    tracking = settings.tracking if settings else TrackingSettings(experiment="Default")
    root = settings.root if settings else storage.absolute(os.environ.get("MLSPARK_HOME") or ".mlspark")
    model = versions.find(runs.connect(tracking, root), name, wanted, retry_seconds=tracking.retry_seconds)
    allows = settings is not None and settings.scoring.allow_decoder
    of_version, baseline = explanation.explainer(model, root, allow_decoder=allows)
    raw = explanation.RawRows(parsed, range(len(parsed)))
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


def _text(rows: str) -> str:
    """Return the text of a file, or of standard input.

    Raises:
        ConfigError: the file cannot be read.
    """
    if rows == "-":
        return sys.stdin.read()
    try:
        return Path(rows).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"byte {error.start + 1} is no UTF-8"
        raise ConfigError(f"ROWS {rows}: cannot be read ({reason})") from None
