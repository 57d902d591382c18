"""`mlspark tune`: search settings of the training by the validation rows of the newest feature table. Driver."""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark import config, session
from mlspark.errors import ConfigError
from mlspark.preparation import prepared as preparations
from mlspark.sources import catalog
from mlspark.streaming import snapshot as snapshots
from mlspark.tuning import search as searches
from mlspark.tuning.search import Search
from mlspark.tuning.study import Metric, TuneOptions
from mlspark.tuning.trials import Tuned, overlay, shown, tune

_SHOWN = 5
_INTERRUPTED = 130


def run(
    files: Sequence[str],
    *,
    overrides: Sequence[str],
    search_file: str,
    trials: int,
    parallel: int,
    study: str | None,
    metric: Metric,
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
        metric: of the validation rows.
        seed: of the drawing.
        storage_url: database of studies; empty: a journal below storage.root.
        out: write the best values there, as a settings file.

    Raises:
        ConfigError: an option, a setting or the search is wrong.
        TableError: nothing was prepared yet.
        TrainingFailed: the first trials all failed, or none ended well.
        typer.Exit: status 130 after Ctrl-C.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)
    if out and not Path(out).resolve().parent.is_dir():
        raise ConfigError(f"--out {out}: the folder does not exist")
    settings = config.load(files, overrides)
    search = searches.load(search_file, settings)
    name = study or settings.name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ConfigError(f"--study {name}: expected letters, digits, dots, dashes and underscores")
    options = TuneOptions(
        study=name, trials=trials, parallel=parallel, metric=metric, seed=seed, storage_url=storage_url
    )
    prepared = preparations.latest(settings)
    spark = session.start(f"mlspark tune {settings.name}", catalog.spark_settings(settings))
    try:
        snapshot = snapshots.take(prepared.table, version=prepared.version)
        tuned = tune(spark, settings, search, options, layout=prepared.encoder.layout, snapshot=snapshot)
    except KeyboardInterrupt:
        typer.echo(f"mlspark: tune: stopped; the same command goes on with study {name}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        spark.stop()
    show(Console(), tuned, search, options)
    lines = [f"drawn in {tuned.plot_uri}"]
    if out:
        best = tuned.ranked[0]
        told = f"# Trial {best.number} of study {name}: {options.title} {best.objective:.4f}, best of {len(tuned.tried)}.\n"
        Path(out).write_text(told + overlay(best), encoding="utf-8")
        given = " ".join(f"--config {file}" for file in (*files, out))
        lines.append(f"wrote {out}; train with it: spark-submit jobs/train.py {given}")
    for line in lines:
        Console(soft_wrap=True).print(Text(line))


def show(console: Console, tuned: Tuned, search: Search, options: TuneOptions) -> None:
    """Print the best trials for a person."""
    best = tuned.ranked[:_SHOWN]
    states = [each.state for each in tuned.tried]
    caption = f"{len(states)} trials: {states.count('complete')} complete, {states.count('pruned')} pruned, "
    table = Table("trial", options.title, caption=f"{caption}{states.count('failed')} failed", caption_justify="left")
    for name in search.names().values():
        table.add_column(Text(name, overflow="fold"))
    for each in best:
        values = (Text(shown(value), overflow="fold") for value in each.values.values())
        table.add_row(str(each.number), f"{each.objective:.4f}", *values)
    console.print(table)
