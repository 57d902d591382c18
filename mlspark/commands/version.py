"""`mlspark version`. Runs anywhere."""

from importlib import metadata

import typer

from mlspark.commands import options

app = options.app()


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"mlspark {metadata.version('mlspark')}")
