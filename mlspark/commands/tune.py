"""`mlspark tune`: search settings of the training by the validation rows of the newest feature table. Driver."""

import logging
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark import credentials, session
from mlspark.commands import interruption, options, output_file, terminal
from mlspark.errors import ConfigError
from mlspark.features import prepared as preparations
from mlspark.features.prepared import Prepared
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.streaming import delta_files
from mlspark.tasks.task import Task
from mlspark.tuning import search as searches
from mlspark.tuning import study as studies
from mlspark.tuning.search import Search
from mlspark.tuning.study import TuneOptions
from mlspark.tuning.trials import Tuned, overlay, shown, tune

_SHOWN = 5

app = options.app()


@app.command("tune")
def tune_command(
    config: options.Config,
    search: Annotated[
        str, typer.Option(metavar="FILE", help="What to choose from: section.key: {low, high} or {choices}, in YAML.")
    ],
    trials: Annotated[int, typer.Option(min=1, help="To have in the study, those of earlier calls included.")] = 20,
    parallel: Annotated[
        int, typer.Option(min=1, help="Trials at a time; each takes training.num_processes task slots.")
    ] = 1,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="The same name goes on with a study; else the pipeline's.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of the task's, on the validation rows; else training.best or the default."),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing; one at a time, the same trials come out.")] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the best values, as settings to train with.")
    ] = None,
    storage_url: Annotated[
        str, typer.Option("--storage", metavar="URL", help="Database of studies; else a journal in storage.root.")
    ] = "",
    set_: options.Overrides = None,
) -> None:
    """Search settings of the training by the validation rows; run again, it goes on where it was."""

    run(
        config,
        overrides=set_ or (),
        search_file=search,
        trials=trials,
        parallel=parallel,
        study=study,
        metric=metric,
        seed=seed,
        storage_url=storage_url,
        out=out,
    )


def run(
    files: Sequence[str],
    *,
    overrides: Sequence[str],
    search_file: str,
    trials: int,
    parallel: int,
    study: str | None,
    metric: str,
    seed: int,
    storage_url: str,
    out: str | None,
) -> None:
    """Run the trials that the study lacks, print the best and write their settings where asked.

    Args:
        files: settings of the pipeline.
        overrides: of settings.
        search_file: see `mlspark.tuning.search`.
        trials: ended ones to have in the study.
        parallel: trials at a time.
        study: its name; None: the pipeline's.
        metric: one of the task's, of the validation rows; empty: training.best, else the task's default.
        seed: of the drawing.
        storage_url: database of studies; empty: a journal below storage.root.
        out: write the best values there, as a settings file.

    Raises:
        ConfigError: an option, a setting or the search is wrong.
        StorageError: the study's journal is damaged, or no place to write to.
        TableError: nothing was prepared yet.
        TrainingFailed: the first trials all failed, or none ended well.
        typer.Exit: status 130 after Ctrl-C.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)
    credentials.refuse(storage_url, at="--storage")
    output_file.check("--out", out)
    settings = loading.load(files, overrides)
    search = searches.load(search_file, settings)
    name = study or settings.name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ConfigError(f"--study {name}: expected letters, digits, dots, dashes and underscores")
    studies.check_place(settings)
    prepared = preparations.latest(settings.table("features"))
    task = settings.task.on_table(prepared.task, prepared.table)
    setting = "--metric" if metric else "training.best"
    metric = task.metric(metric or settings.training.best, setting=setting)
    options = TuneOptions(
        study=name,
        trials=trials,
        parallel=parallel,
        metric=metric,
        is_minimized=task.lower_is_better(metric),
        seed=seed,
        storage_url=storage_url,
    )
    tuned = _tuned(settings, search, options, prepared, task)
    show(terminal.console(), tuned, search, options)
    lines = [f"drawn in {tuned.plot_uri}"]
    if out:
        lines.append(_write(out, tuned, options, files))
    for line in lines:
        Console(soft_wrap=True).print(Text(line))


def _tuned(settings: Settings, search: Search, options: TuneOptions, prepared: Prepared, task: Task) -> Tuned:
    """Return the study, its trials trained on the prepared table."""
    spark = session.start(f"mlspark tune {settings.name}", catalog.spark_settings(settings.all_sources.values()))
    try:
        snapshot = delta_files.take(prepared.table, version=prepared.version)
        tensors = prepared.encoder.tensors(task)
        with interruption.raised(spark):
            return tune(spark, settings, search, options, tensors=tensors, task=task, snapshot=snapshot)
    except KeyboardInterrupt as error:
        typer.echo(f"mlspark: tune: stopped; the same command goes on with study {options.study}", err=True)
        raise typer.Exit(interruption.status(error)) from None
    finally:
        session.stop(spark)


def _write(out: str, tuned: Tuned, options: TuneOptions, files: Sequence[str]) -> str:
    """Write the best trial's values as a settings file; return a line that says how to train with it."""
    best = tuned.ranked[0]
    figure = f"{options.title} {best.objective:.4f}"
    comment = f"# Trial {best.number} of study {options.study}: {figure}, best of {len(tuned.tried)}.\n"
    stands = "the study stands, run the same command again for the file"
    output_file.write("--out", out, comment + overlay(best), what_stands=stands)
    config_options = " ".join(f"--config {file}" for file in (*files, out))
    return f"wrote {out}; train with it: spark-submit jobs/train.py {config_options}"


def show(console: Console, tuned: Tuned, search: Search, options: TuneOptions) -> None:
    """Print the best trials for a person."""
    best = tuned.ranked[:_SHOWN]
    states = [trial.state for trial in tuned.tried]
    caption = f"{len(states)} trials: {states.count('complete')} complete, {states.count('pruned')} pruned, "
    table = Table("trial", options.title, caption=f"{caption}{states.count('failed')} failed", caption_justify="left")
    for name in search.names().values():
        table.add_column(Text(name, overflow="fold"))
    for trial in best:
        values = (Text(shown(value), overflow="fold") for value in trial.values.values())
        table.add_row(str(trial.number), f"{trial.objective:.4f}", *values)
    console.print(table)
