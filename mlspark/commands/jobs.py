"""`mlspark jobs`: what is queued, runs and has ended. Needs no Spark."""

import contextlib
import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from mlspark.commands import options, output_file, terminal
from mlspark.queue import job as jobs_
from mlspark.queue import places
from mlspark.queue.store import Store

app = options.app()


@app.command()
def jobs(
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="One job, with its attempts; else the newest ones.")] = "",
    most: Annotated[int, typer.Option("--most", min=1, help="So many of the newest ones.")] = 20,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write it as JSON, too; -: print it as JSON alone.")
    ] = None,
) -> None:
    """List jobs: state, stage, attempts, time, and why those failed that did."""
    if json_file != "-":
        output_file.check("--json", json_file)
    queue = places.existing()
    with contextlib.closing(Store(queue.database)) as store:
        if store.has_work():
            queue.start_worker()  # none lives after the machine was down
        chosen = [store.job(job)] if job else store.jobs(most=most)
        listed = []
        for each in chosen:
            attempts = [replace(one, seconds=queue.seconds(each, one)) for one in store.attempts(each)]
            entry = jobs_.to_json(each, attempts)
            listed.append(entry)
            folder = queue.job(each)
            entry["reports"] = {name: str(folder / f"{name}.json") for name in entry["stages"]
                                if (folder / f"{name}.json").exists()}  # fmt: skip
    if json_file:
        text = json.dumps(listed[0] if job else listed, indent=1, ensure_ascii=False) + "\n"
        if json_file == "-":
            typer.echo(text, nl=False)
            return
        output_file.write("--json", json_file, text, what_stands="it is printed below")
    if job:
        _print_one(listed[0])
    elif listed:
        _print(listed)
    else:
        typer.echo(f"no jobs in {queue.folder} yet")


def _print(listed: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("job", "state", "stage", "attempts", "seconds", "target", "submitted (UTC)", "reason"):
        table.add_column(name, overflow="fold", justify="right" if name in ("attempts", "seconds") else "left")
    for entry in listed:
        place = 1 + entry["stages"].index(entry["stage"])
        table.add_row(
            entry["id"],
            entry["state"],
            f"{entry['stage']} {place}/{len(entry['stages'])}",
            str(len(entry["attempts"])),
            f"{entry['seconds']:.0f}",
            entry["target"],
            entry["submitted"][:16].replace("T", " "),
            entry["reason"],
        )
    terminal.console().print(table, highlight=False, markup=False)


def _print_one(entry: dict[str, Any]) -> None:
    typer.echo(f"{entry['id']}: {entry['state']}, {entry['target']}, {entry['pipeline']}:{','.join(entry['stages'])}")
    if entry["reason"]:
        typer.echo(f"  {entry['reason']}")
    for attempt in entry["attempts"]:
        status = "" if attempt["exit_status"] is None else f", exit status {attempt['exit_status']}"
        reason = f": {attempt['reason']}" if attempt["reason"] else ""
        typer.echo(
            f"  {attempt['number']}. {attempt['stage']}: {attempt['state']}{status}, {attempt['seconds']:.1f} s{reason}"
        )
    for name, file in entry["reports"].items():
        typer.echo(f"  report of {name}: {file}")
