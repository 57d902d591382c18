"""Manifests without a cluster: python -m tools.deploy check FOLDER | sums FOLDER."""

from pathlib import Path

import typer

from tools.deploy.check import faults
from tools.deploy.manifests import load
from tools.deploy.sums import sums

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def check(folder: Path) -> None:
    """Name each fault of a kustomization's manifests; exit status 2 when there are some."""
    manifests = load(folder)
    lines = faults(manifests)
    for line in lines:
        typer.echo(line, err=True)
    if lines:
        raise typer.Exit(2)
    typer.echo(f"{folder}: {len(manifests)} manifests are good")


@app.command(name="sums")
def print_sums(folder: Path) -> None:
    """Print what all manifests of a kustomization together request, and their limits."""
    for group, amounts in sums(load(folder)).items():
        typer.echo(f"{group}: " + ", ".join(f"{name} {amount:g}" for name, amount in sorted(amounts.items())))


if __name__ == "__main__":
    app()
