"""`mlspark compare`: versions beside one another on the same rows. Starts Spark for slices and for other rows alone."""

import json
import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark.commands import options, output_file, spark_when_asked, terminal, version_argument
from mlspark.errors import ConfigError
from mlspark.reports.comparison_page import BAD, GOOD, ReportTable
from mlspark.reports.wording import visible
from mlspark.settings import loading

_COLOURS = {GOOD: "green", BAD: "red"}

app = options.app()


@app.command()
def compare(
    versions: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME/VERSION|NAME@ALIAS...", help="Two or more; the others are held against the first."
        ),
    ],
    config: options.Config,
    split: Annotated[Literal["test", "validation"], typer.Option(help="Whose rows.")] = "test",
    slice_: Annotated[
        list[str] | None,
        typer.Option(
            "--slice", metavar="COLUMN", help="Also on each value, or band, of a raw column; may be repeated."
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="Of the slices; else accuracy, for numbers the task's own.")
    ] = "",
    confidence: Annotated[float, typer.Option(help="Of the intervals of differences.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap.")] = 2000,
    json_file: options.JsonFile = None,
    page: Annotated[str | None, typer.Option("--page", metavar="FILE", help="Write it as one page, too.")] = None,
    set_: options.Overrides = None,
) -> None:
    """Compare registered versions on the same rows: differences with intervals and tests, slices, latency, size."""

    run(
        versions, config, overrides=set_ or (), split=split, slices=slice_ or (), metric=metric, confidence=confidence,
        resamples=resamples, json_file=json_file, page=page,
    )  # fmt: skip


def run(
    versions: Sequence[str],
    files: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    split: str = "test",
    slices: Sequence[str] = (),
    metric: str = "",
    confidence: float = 0.95,
    resamples: int = 2000,
    json_file: str | None = None,
    page: str | None = None,
) -> None:
    """Print the comparison, write it where asked, and keep it with the newest version's run.

    Args:
        versions: NAME/3, NAME@alias, or NAME for its alias registry.alias.
        files: settings of the pipeline.
        overrides: of settings.
        split: test or validation.
        slices: raw columns.
        metric: of the slices; empty: see `evaluation.slices.default_metric`.
        confidence: of the intervals of differences.
        resamples: of the bootstrap.
        json_file: file to write as JSON.
        page: file to write as a page.

    Raises:
        ConfigError: an option or a setting is wrong.
        MlsparkError: as `stages.compare.compare_versions`.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)
    for option, file in (("--json", json_file), ("--page", page)):
        output_file.check(option, file)
    settings = loading.load(list(files), list(overrides))
    wanted = tuple(
        version_argument.parsed(text, settings.registry.model_name, settings.registry.alias) for text in versions
    )
    if len(wanted) < 2:
        raise ConfigError(f"compare {' '.join(versions)}: give two or more versions, like census/1 census@champion")
    from mlspark.evaluation import comparison, comparison_report  # takes seconds: torch, MLflow
    from mlspark.stages.compare import Wanted, compare_versions

    comparison.check_range(confidence, resamples)
    asked = Wanted(wanted, split, tuple(dict.fromkeys(slices)), metric, confidence, resamples)
    with spark_when_asked.for_command("compare", settings) as spark:
        compared = compare_versions(settings, asked, spark)
    output = terminal.console()
    first = compared.versions[0]
    output.print(Text(f"{len(first.rows):,} rows: {compared.origin}"))
    for remark in compared.remarks:
        output.print(Text(visible(remark, 1000)))
    for table in comparison_report.tables(compared):
        _show(output, table)
    stands = "what is printed above stands"
    if json_file:
        text = json.dumps(compared.to_json(), indent=1, allow_nan=False) + "\n"
        output_file.write("--json", json_file, text, what_stands=stands)
    if page:
        output_file.write("--page", page, comparison_report.page(compared), what_stands=stands)
    for file in (json_file, page):
        if file:
            typer.echo(f"wrote {file}")


def _show(output: Console, table: ReportTable) -> None:
    shown = Table(title=Text(visible(table.title, 200), style="bold"), title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(table.columns):
        shown.add_column(Text(visible(name, 200)), justify="left" if place == 0 else "right")
    for row in table.rows:
        shown.add_row(*(Text(visible(cell.text, 200), style=_COLOURS.get(cell.kind, "")) for cell in row))
    output.print()
    output.print(shown)
    for note in table.notes:
        output.print(Text(visible(note, 1000), style="dim"))
