"""`mlspark importance`: what each raw column is worth to a version. Driver; starts no Spark."""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from mlspark.commands import options, output_file, terminal, version_argument
from mlspark.settings import loading

app = options.app()

_BAR = 20
_SPLITS = Literal["validation", "test"]


@app.command()
def importance(
    config: options.Config,
    version: Annotated[
        str,
        typer.Argument(metavar="NAME[/VERSION|@ALIAS]", help="The version; else the pipeline's newest by its alias."),
    ] = "",
    split: Annotated[_SPLITS, typer.Option(help="Whose rows are shuffled.")] = "validation",
    metric: Annotated[str, typer.Option(help="Metric that gets worse; else the task's own.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Shuffles of each column.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shuffles.")] = 0,
    rows: Annotated[int, typer.Option(min=0, help="Most rows, drawn where there are more; 0: all.")] = 20_000,
    json_file: options.JsonFile = None,
    set_: options.Overrides = None,
) -> None:
    """Show how much worse a version is without what each raw column says, and keep that with the version's run."""

    run(
        config, overrides=set_ or (), version=version, split=split, metric=metric, repeats=repeats, seed=seed, rows=rows,
        json_file=json_file,
    )  # fmt: skip


def run(
    files: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    version: str = "",
    split: _SPLITS = "validation",
    metric: str = "",
    repeats: int = 5,
    seed: int = 0,
    rows: int = 20_000,
    json_file: str | None = None,
) -> None:
    """Show the importance of raw columns.

    Args:
        files: settings of the pipeline.
        overrides: of settings.
        version: NAME/3, NAME@alias, or NAME for its alias registry.alias; empty: the pipeline's own model.
        split: whose rows are shuffled.
        metric: of the task; empty: its own.
        repeats: shuffles of each column.
        seed: of the shuffles.
        rows: most rows; 0: all.
        json_file: also write it there.

    Raises:
        ConfigError: an option or a setting is wrong.
        RegistryError: there is no such version.
        MlsparkError: its rows are gone, or too few.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)
    output_file.check("--json", json_file)
    settings = loading.load(list(files), list(overrides))
    name, wanted = version_argument.parsed(version, settings.registry.model_name, settings.registry.alias)
    from mlspark.stages import importance as stage  # takes seconds: torch, MLflow

    result = stage.importance(settings, name, wanted, split=split, metric=metric, repeats=repeats, seed=seed, most=rows)
    _show(result)
    if json_file:
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        output_file.write("--json", json_file, text, what_stands="the same is above, and with the version's run")


def _show(result: dict[str, Any]) -> None:
    """Print the columns, those that are worth most first."""
    table = Table("column", "worse by", "95 % interval", "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    most = max((abs(each["importance"]) for each in result["columns"]), default=0.0) or 1.0
    for each in result["columns"]:
        low, high = each["interval"]
        bar = ("+" if each["importance"] > 0 else "-") * round(abs(each["importance"]) / most * _BAR)
        table.add_row(
            Text(", ".join(each["columns"]), overflow="fold"),
            f"{each['importance']:+.5f}",
            Text(f"[{low:+.5f}, {high:+.5f}]"),
            Text(bar, "blue" if each["importance"] > 0 else "dark_orange"),
        )
    console = terminal.console()
    console.print(table)
    console.print(
        Text(
            f"{result['model']} version {result['version']}: {result['metric']} {result['value']:.4f} of {result['rows']:,} "
            f"{result['split']} rows; how much worse it is when a column's values are shuffled, mean of "
            f"{result['repeats']} shuffles, with its 95 % interval"
        )
    )
