"""`mlspark optimize`: a version of a network run by the fastest engine that loses little enough. Needs no Spark."""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mlspark.commands import options, output_file, version_argument
from mlspark.engines.candidates import CANDIDATES
from mlspark.registry.settings import check_names
from mlspark.settings import loading

app = options.app()


@app.command()
def optimize(
    config: options.Config,
    version: Annotated[
        str,
        typer.Argument(metavar="[NAME[/VERSION|@ALIAS]]", help="The version; else the pipeline's newest by its alias."),
    ] = "",
    max_loss: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, metavar="LOSS",
            help="Most that accuracy on the validation rows may fall; of numbers the share by which the metric may worsen.",
        ),
    ] = 0.005,
    batch_rows: Annotated[
        int, typer.Option(min=0, metavar="ROWS", help="Rows at a time when speed is measured; else 64 pictures or 4096.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine when speed is measured.")] = 1,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="Take this engine, whatever its speed: " + ", ".join(CANDIDATES) + ".")
    ] = "",
    alias: Annotated[str, typer.Option(help="Alias that is moved to the new version; else none is.")] = "",
    report: options.Report = None,
    set_: options.Overrides = None,
) -> None:  # fmt: skip
    """Export a registered network to other engines and register the fastest that loses little enough as a version."""

    run(
        config,
        overrides=set_ or (),
        version=version,
        max_loss=max_loss,
        batch_rows=batch_rows,
        threads=threads,
        engine=engine,
        alias=alias,
        report_file=report,
    )


def run(
    files: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    version: str = "",
    max_loss: float = 0.005,
    batch_rows: int = 0,
    threads: int = 1,
    engine: str = "",
    alias: str = "",
    report_file: str | None = None,
) -> None:
    """Optimise the version and print what came of each engine.

    Args:
        files: settings of the pipeline.
        overrides: of settings.
        version: see `version_argument`.
        max_loss: see `training.engine_trials.Choice`, as the next three.
        batch_rows: rows at a time.
        threads: of each engine.
        engine: the one to take; empty: the fastest.
        alias: of the new version.
        report_file: JSON report to write.

    Raises:
        ConfigError: an option or a setting is wrong.
        RegistryError: there is no such version, or it is none of a network.
        MlsparkError: its run's files are gone.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)  # it takes minutes: say how far it is
    output_file.check("--report", report_file)
    settings = loading.load(list(files), list(overrides))
    name, wanted = version_argument.parsed(version, settings.registry.model_name, settings.registry.alias)
    check_names(name, alias)
    from mlspark.stages import optimize as stage  # takes seconds: torch, MLflow
    from mlspark.training.engine_trials import Choice

    report = stage.optimize(settings, name, wanted, Choice(max_loss, batch_rows, threads, engine), alias=alias)
    for line in stage.lines(report):
        typer.echo(line)
    if report_file:
        output_file.write(
            "--report", report_file, json.dumps(report, indent=1) + "\n", what_stands="what was registered stands"
        )
