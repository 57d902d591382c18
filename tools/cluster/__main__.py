"""All servers for a person: python -m tools.cluster start | stop | upload (`make cluster`, `make cluster-stop`)."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mlspark.errors import MlsparkError
from tools.cluster import background, loading

_FOLDER = Path(".mlspark/cluster")
_USER_ERROR = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def start(
    servers: Annotated[
        list[str] | None, typer.Argument(help=f"Some of {', '.join(background.SERVERS)}; none: all.")
    ] = None,
) -> None:
    """Start servers in the background, wait until they answer, and tell how to use them."""
    is_new = background.start(_FOLDER, servers or list(background.SERVERS))
    typer.echo("cluster: running" if is_new else "cluster: already running; stop it first to start others")
    typer.echo(background.guide(_FOLDER))


@app.command()
def stop() -> None:
    """Stop the servers; what they hold is gone with them."""
    typer.echo("cluster: stopped" if background.stop(_FOLDER) else "cluster: not running")


@app.command()
def upload(folder: Path, uri: str) -> None:
    """Copy a local folder to HDFS or S3."""
    loading.upload(folder, uri)


@app.command(hidden=True)
def run(servers: list[str]) -> None:
    """Run servers until SIGTERM; what `start` puts in the background."""
    background.run(_FOLDER, servers)


if __name__ == "__main__":
    try:
        app()
    except MlsparkError as error:
        typer.echo(f"cluster: {error}", err=True)
        sys.exit(_USER_ERROR)
