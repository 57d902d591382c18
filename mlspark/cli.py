"""The `mlspark` command. Driver only; the three jobs have command lines of their own in jobs/."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

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


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"mlspark {metadata.version('mlspark')}")
