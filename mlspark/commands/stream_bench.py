"""`mlspark stream-bench`: how fast a table streams. Runs anywhere; needs no Spark."""

from typing import Annotated, Literal

import typer

from mlspark import storage
from mlspark.commands import options
from mlspark.streaming import bench

app = options.app()


@app.command()
def stream_bench(
    table: Annotated[str, typer.Argument(help="Path or URI of a Delta table.")],
    version: Annotated[int | None, typer.Option(help="Of the table; else the latest.")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Columns to stream; else all that can be.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 1024,
    window: Annotated[int, typer.Option(min=1, help="Rows shuffled among each other.")] = 400_000,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Reader threads or processes; else 4 for a remote table, 2 for a local one."),
    ] = None,
    pool: Annotated[Literal["thread", "process"], typer.Option(help="What the workers are.")] = "thread",
    step_ms: Annotated[float, typer.Option(min=0.0, help="Milliseconds that a training step takes.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to stream.")] = 10.0,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
) -> None:
    """Stream a table as training would; print rows/s, waiting, memory, and what would make it faster."""
    figures = bench.measure(
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
        f"{figures.table} version {figures.version}: {figures.rows:,} rows in {figures.files:,} files, "
        f"{figures.row_groups:,} row groups of about {figures.rows_per_group:,} rows, {figures.codec.lower()}\n"
        f"{figures.rows_per_second:,.0f} rows/s, {figures.stored_mb_per_second:,.1f} MB/s as stored, "
        f"{figures.tensor_mb_per_second:,.1f} MB/s as tensors ({figures.rows_read:,} rows in {figures.seconds:.1f} s)\n"
        f"first batch after {figures.first_batch_seconds:.2f} s, waited {figures.wait_fraction:.0%} of the time "
        f"(steps of {step_ms:g} ms), memory up to {figures.peak_memory_mb:,.0f} MB"
    )
    if figures.left_out:
        typer.echo(f"left out, of types that cannot be streamed: {', '.join(figures.left_out)}")
    for advice in figures.advice:
        typer.echo(f"- {advice}")
    if json_file:
        storage.write_json(json_file, figures.to_json())
