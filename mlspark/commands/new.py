"""`mlspark new`: a project of one's own from a CSV file. Starts no Spark."""

from pathlib import Path
from typing import Annotated

import typer

from mlspark.commands import options
from mlspark.projects import csv_rows, files
from mlspark.projects.draft import TaskKind
from mlspark.projects.draft import draft as draft_from

app = options.app()


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Folder of the project, a new one; its name is the pipeline's.")
    ],
    csv: Annotated[Path, typer.Option("--csv", metavar="FILE", help="The rows to learn from.")],
    label: Annotated[str, typer.Option("--label", metavar="COLUMN", help="The column to predict.")],
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Names of the columns, for a file without a header.")
    ] = None,
    task: Annotated[TaskKind | None, typer.Option(help="Else decided from the label's values.")] = None,
) -> None:
    """Make a project from a CSV file: settings, contract, features, jobs, tests, CI, a notebook. `make demo` runs it."""

    folder = Path(name)
    files.check_place(folder)
    names = [column.strip() for column in columns.split(",")] if columns else []
    rows = csv_rows.read(csv, names)
    drafted = draft_from(folder.name, rows, label, task)
    written = files.write(folder, rows, drafted)
    of = "all" if rows.is_whole else "the first"
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in drafted.reasons.items())
    typer.echo(
        f"{csv}: {of} {drafted.num_rows:,} rows, {drafted.num_bad:,} to be quarantined"
        + (f" ({reasons})" * bool(reasons))
    )
    for note in drafted.notes:
        typer.echo(note)
    typer.echo(f"wrote {len(written)} files into {folder}; next: cd {folder} && make demo")
