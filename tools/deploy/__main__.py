"""Manifests without a cluster: python -m tools.deploy check FOLDER | sums FOLDER."""

from pathlib import Path

import typer

from tools.deploy import check as checking
from tools.deploy.manifests import load
from tools.deploy.sums import Sums, by_object, total

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def check(folder: Path) -> None:
    """Name each fault of a kustomization's manifests, exit status 2; of good ones print what they ask for."""
    try:
        lines = checking.check(folder)
    except (OSError, ValueError) as error:
        lines = [str(error)]
    for line in lines:
        typer.echo(line, err=True)
    if lines:
        raise typer.Exit(2)
    typer.echo(f"{folder}: {len(load(folder))} manifests are good")
    sums(folder)


@app.command()
def sums(folder: Path) -> None:
    """Print what each object of a kustomization asks for, and all together; memory and storage in GiB."""
    objects = by_object(load(folder))
    for name, one in objects.items():
        typer.echo(f"{name}: {_said(one)}")
    typer.echo(f"all: {_said(total(objects))}")


def _said(one: Sums) -> str:
    groups = (
        f"{group} " + ", ".join(f"{name} {amount:g}" for name, amount in sorted(amounts.items()))
        for group, amounts in one.items()
    )
    return "; ".join(groups)


if __name__ == "__main__":
    app()
