"""The `mlspark` command. Driver only; the three jobs have command lines of their own in jobs/."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from mlspark import storage
from mlspark.datasets import adult
from mlspark.errors import MlsparkError

USER_ERROR = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command line; exit with 2 and one message, without a traceback, for what the user can mend."""
    try:
        app()
    except MlsparkError as error:
        typer.echo(f"mlspark: {error}", err=True)
        sys.exit(USER_ERROR)


@app.callback()
def _mlspark() -> None:
    """From tables in a data lake to trained, versioned PyTorch models and scored rows."""


@app.command()
def fetch(
    data_set: Annotated[Literal["adult"], typer.Argument(metavar="adult", help="UCI Adult (Census Income), 6 MB.")],
    into: Annotated[Path, typer.Option(metavar="FOLDER", help="Raw data; MLSPARK_DATA names it to the jobs.")] = Path(
        "data"
    ),
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Folder on a web server that has the files.")
    ] = adult.BASE_URL,
) -> None:
    """Download a public data set; run it again to go on after a break."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, disable=not sys.stderr.isatty()) as bars:

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        downloaded = adult.fetch(into / data_set, base_url=base_url, progress=show)
    typer.echo(
        f"{into / data_set}: {', '.join(downloaded) or 'everything'} "
        f"{'downloaded, checksums right' if downloaded else 'already there'}"
    )


@app.command()
def demo() -> None:
    """Run prepare, train and score on census rows and sum up what came of it; from the repository's folder."""
    from mlspark import demo as demonstration  # here, because it imports MLflow, which takes seconds

    raise typer.Exit(demonstration.run())


contract = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(contract, name="contract", help="Draft a contract from data; hold data against a contract.")

Kind = Annotated[
    Literal["csv", "json", "parquet", "orc", "delta", "hive", "jdbc"] | None,
    typer.Option(help="How the data is stored; its name tells, if you do not."),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="As in the sources of a configuration; may be repeated. csv: header=true, separator=';', missing='?', ...",
    ),
]


@contract.command()
def infer(
    source: Annotated[str, typer.Argument(help="Path or URI, database.table, or jdbc: URL.")],
    kind: Kind = None,
    option: Option = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Names for CSV without a header; else c1, c2, ...")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The contract's; else from the source.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to be predicted.")] = None,
    into: Annotated[str | None, typer.Option(metavar="FILE", help="A new file; else it is printed.")] = None,
) -> None:
    """Draft a contract from data: types, ranges, category lists and a key, as seen; widen it before use."""
    from mlspark import contract_commands  # here, because it imports Spark, which takes a second or two

    contract_commands.run_infer(
        source, kind=kind, options=option or (), columns=columns, name=name, label=label, into=into
    )


@contract.command()
def check(
    source: Annotated[
        str | None, typer.Argument(help="With --contract: path or URI, database.table, jdbc: URL.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="FILE", help="Settings: checks sources.learn and sources.test."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting.")
    ] = None,
    contract_file: Annotated[
        str | None, typer.Option("--contract", metavar="FILE", help="The source's contract.")
    ] = None,
    kind: Kind = None,
    option: Option = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
) -> None:
    """Tell which rows and rules fail, without writing; status 2 when prepare would refuse the data as a whole."""
    from mlspark import contract_commands

    contract_commands.run_check(
        source,
        kind=kind,
        options=option or (),
        contract_file=contract_file,
        files=config or (),
        overrides=set_ or (),
        json_file=json_file,
    )


@app.command("stream-bench")
def stream_bench(
    table: Annotated[str, typer.Argument(help="Path or URI of a Delta table.")],
    version: Annotated[int | None, typer.Option(help="Of the table; else the latest.")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Columns to stream; else all that can be.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 1024,
    window: Annotated[int, typer.Option(min=1, help="Rows shuffled among each other.")] = 400_000,
    workers: Annotated[int, typer.Option(min=1, help="Reader threads or processes.")] = 2,
    pool: Annotated[Literal["thread", "process"], typer.Option(help="What the workers are.")] = "thread",
    step_ms: Annotated[float, typer.Option(min=0.0, help="Milliseconds that a training step takes.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to stream.")] = 10.0,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
) -> None:
    """Stream a table as training would; print rows/s, waiting, memory, and what would make it faster."""
    from mlspark.streaming import bench  # here, because it imports torch, which takes seconds

    found = bench.measure(
        table,
        version=version,
        columns=columns.split(",") if columns else None,
        batch_size=batch_size,
        shuffle_window_rows=window,
        workers=workers,
        pool=pool,
        step_seconds=step_ms / 1000,
        seconds=seconds,
    )
    typer.echo(
        f"{found.table} version {found.version}: {found.rows:,} rows in {found.files:,} files, "
        f"{found.row_groups:,} row groups of about {found.rows_per_group:,} rows, {found.codec.lower()}\n"
        f"{found.rows_per_second:,.0f} rows/s, {found.stored_mb_per_second:,.1f} MB/s as stored, "
        f"{found.tensor_mb_per_second:,.1f} MB/s as tensors ({found.rows_read:,} rows in {found.seconds:.1f} s)\n"
        f"first batch after {found.first_batch_seconds:.2f} s, waited {found.wait_fraction:.0%} of the time "
        f"(steps of {step_ms:g} ms), memory up to {found.peak_memory_mb:,.0f} MB"
    )
    if found.left_out:
        typer.echo(f"left out, of types that cannot be streamed: {', '.join(found.left_out)}")
    for advice in found.advice:
        typer.echo(f"- {advice}")
    if json_file:
        storage.write_json(json_file, found.to_json())


@app.command()
def profile(
    config: Annotated[list[str], typer.Option("--config", metavar="FILE", help="Settings of the pipeline.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Of the feature table; else the newest.")] = None,
    against: Annotated[int | None, typer.Option(help="An older version to compare with.")] = None,
    html_file: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write the page.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write it as JSON.")] = None,
) -> None:
    """Show what a version's rows hold, or how they drifted from another version's."""
    from mlspark import profile_command

    profile_command.run(
        config, overrides=set_ or (), version=version, against=against, html_file=html_file, json_file=json_file
    )


@app.command("explain-features")
def explain_features(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="Settings, like conf/census.yaml.")],
    row: Annotated[
        str,
        typer.Argument(metavar="ROW", help="JSON object, @FILE with one, or a line as in the pipeline's CSV source."),
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Of the feature table; else the newest.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write it as JSON, too.")] = None,
) -> None:
    """Show how one raw row becomes its numbers: each output, its place in a batch, and what it means."""
    from mlspark import explain_command

    explain_command.run(pipeline, row, overrides=set_ or [], version=version, json_file=json_file)


@app.command()
def tune(
    config: Annotated[
        list[str],
        typer.Option("--config", metavar="FILE", help="Settings of the pipeline; later files override earlier."),
    ],
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
        Literal["log_loss", "roc_auc", "accuracy"], typer.Option(help="Of the validation rows.")
    ] = "log_loss",
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing; one at a time, the same trials come out.")] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the best values, as settings to train with.")
    ] = None,
    storage_url: Annotated[
        str, typer.Option("--storage", metavar="URL", help="Database of studies; else a journal in storage.root.")
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting.")
    ] = None,
) -> None:
    """Search settings of the training by the validation rows; run again, it goes on where it was."""
    from mlspark import tune_command  # here, because it imports torch, MLflow and Spark, which takes seconds

    tune_command.run(
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


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"mlspark {metadata.version('mlspark')}")
