"""`mlspark evaluate`: how good a version is, where it errs and on which rows, as one page. Needs no Spark."""

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from mlspark.commands import options, output_file, version_argument
from mlspark.settings import loading

app = options.app()


@app.command()
def evaluate(
    config: options.Config,
    version: Annotated[
        str,
        typer.Argument(metavar="NAME[/VERSION|@ALIAS]", help="The version; else the pipeline's newest by its alias."),
    ] = "",
    output: Annotated[str, typer.Option(metavar="FILE", help="Page to write.")] = "evaluation.html",
    split: Annotated[
        Literal["test", "validation"] | None, typer.Option(help="Whose rows are shown; else test, if there are any.")
    ] = None,
    rows: Annotated[
        str, typer.Option(metavar="ID,ID", help="row_id of rows to look at, in place of the worst mistakes.")
    ] = "",
    words: Annotated[
        bool, typer.Option("--words", help="Name categories, which are values of the data, beside their ids.")
    ] = False,
    set_: options.Overrides = None,
) -> None:
    """Write the evaluation of a registered version as one page: metrics, curves, classes, single rows and why."""

    run(config, overrides=set_ or (), version=version, output=output, split=split or "", rows=rows, in_words=words)


def run(
    files: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    version: str = "",
    output: str = "evaluation.html",
    split: str = "",
    rows: str = "",
    in_words: bool = False,
) -> None:
    """Write the page.

    Args:
        files: settings of the pipeline.
        overrides: of settings.
        version: NAME/3, NAME@alias, or NAME for its alias registry.alias; empty: the pipeline's own model.
        output: file to write.
        split: test or validation; empty: test, or validation where there are no test rows.
        rows: ids of rows, with commas between them; empty: the worst mistakes.
        in_words: whether the page names categories.

    Raises:
        ConfigError: an option or a setting is wrong.
        RegistryError: there is no such version.
        MlsparkError: its run's files are gone.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    output_file.check("--output", output)
    row_ids = version_argument.row_ids(rows, option="--rows")
    settings = loading.load(list(files), list(overrides))
    name, wanted = version_argument.parsed(version, settings.registry.model_name, settings.registry.alias)
    from mlspark.stages import evaluation  # takes seconds: torch, MLflow

    page = evaluation.page(settings, name, wanted, split=split, row_ids=row_ids, in_words=in_words)
    output_file.write("--output", output, page, what_stands="no page was written")
    typer.echo(f"wrote {output}")
