"""`mlspark fetch`: public data sets, downloaded and checked. Runs anywhere."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from mlspark.commands import options
from mlspark.datasets import download
from mlspark.datasets.known import DATA_SETS

app = options.app()


@app.command()
def fetch(
    data_set: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Data set to download; left out: list those known.")
    ] = None,
    into: Annotated[Path, typer.Option(metavar="FOLDER", help="Raw data; MLSPARK_DATA names it to the jobs.")] = Path(
        "data"
    ),
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Folder on a web server that has the files; else where published.")
    ] = "",
) -> None:
    """Download a public data set, or list those known; run it again after a break to fetch the missing files."""
    if data_set is None:
        for name, entry in DATA_SETS.items():
            typer.echo(f"{name}: {entry.title}, {entry.num_bytes / 1e6:.1f} MB from {entry.base_url}")
            typer.echo(f"  {entry.source}")
        return
    if data_set not in DATA_SETS:
        raise typer.BadParameter(f"{data_set!r} is not one of {', '.join(DATA_SETS)}", param_hint="NAME")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, disable=not sys.stderr.isatty()) as bars:

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        downloaded = download.fetch(data_set, into / data_set, base_url=base_url, progress=show)
    typer.echo(
        f"{into / data_set}: {', '.join(downloaded) or 'everything'} "
        f"{'downloaded, checksums right' if downloaded else 'already there'}"
    )
