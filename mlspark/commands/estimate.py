"""`mlspark estimate`: how long a job will take, and what it will cost, from those that were done. Needs no Spark."""

import json
from typing import Annotated, Any, Literal

import typer

from mlspark.commands import options, output_file
from mlspark.settings import loading

app = options.app()


@app.command()
def estimate(
    job: Annotated[Literal["train", "score"], typer.Argument(metavar="train|score", help="The job.")],
    config: options.Config,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Training rows or rows to score; else of the newest table, or as many as ever."),
    ] = None,
    set_: options.Overrides = None,
    json_file: options.JsonFile = None,
) -> None:
    """Say how long a job will take and what it will cost, and by how much that missed those that were done."""

    output_file.check("--json", json_file)
    settings = loading.load(config, set_ or ())
    from mlspark.stages import estimate as stage  # takes seconds: torch

    found = stage.estimate(settings, job, rows=rows)
    for line in lines(found):
        typer.echo(line)
    if json_file:
        output_file.write("--json", json_file, json.dumps(found, indent=1) + "\n", what_stands="it is above")


def lines(found: dict[str, Any]) -> list[str]:
    """Return an estimate in words."""
    cost = found["cost"]
    priced = "" if cost is None else f", {cost['amount']:.4f} {cost['currency']} ({cost['count']} x {cost['tier']})"
    said = [f"{found['job']}: {found['rows']:,} rows take about {found['seconds']:.0f} s{priced}"]
    runs = "1 job" if found["num_runs"] == 1 else f"{found['num_runs']} jobs"
    if found["median_error"] is None:
        return [*said, f"from {runs} like it; how far that is from the truth is not known before the second"]
    return [
        *said,
        f"from {runs} like it; estimates of each from the others miss it by {100 * found['least_error']:.0f} % at least, "
        f"{100 * found['median_error']:.0f} % in the median, {100 * found['greatest_error']:.0f} % at most",
    ]
