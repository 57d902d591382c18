"""`mlspark plan`: how many ranks a training wants, in hours and money. Needs no Spark."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mlspark.commands import options, output_file, terminal
from mlspark.errors import ConfigError
from mlspark.settings import loading

app = options.app()


@app.command()
def plan(
    config: options.Config,
    hours: Annotated[float | None, typer.Option(min=0.0, help="Most hours: the cheapest that is done by then.")] = None,
    budget: Annotated[float | None, typer.Option(min=0.0, help="Most money: the fastest for that.")] = None,
    ranks: Annotated[
        str | None, typer.Option(metavar="1,2,4", help="Numbers of ranks; else 1, 2, 4, ... 1024.")
    ] = None,
    rows: Annotated[
        float | None, typer.Option(min=1, help="Training rows, 1e11 too; else of the newest table.")
    ] = None,
    row_bytes: Annotated[float | None, typer.Option(min=0.1, help="Bytes of a row in the table's files.")] = None,
    rows_per_second: Annotated[float | None, typer.Option(min=1e-3, help="Of one rank; else from jobs of one.")] = None,
    step_ms: Annotated[float, typer.Option(min=0.0, help="Milliseconds of a step that rows do not change.")] = 0.0,
    parameters: Annotated[int | None, typer.Option(min=1, help="Of the model; else counted.")] = None,
    ranks_per_machine: Annotated[int | None, typer.Option(min=1, help="Else a GPU or core each.")] = None,
    network_gbit: Annotated[float, typer.Option(min=1e-3, help="Network of a machine, Gbit/s.")] = 10.0,
    latency_us: Annotated[float, typer.Option(min=0.0, help="Of a message between ranks, microseconds.")] = 50.0,
    store_gbit: Annotated[
        float | None, typer.Option(min=1e-3, help="What the store gives all together, Gbit/s.")
    ] = None,
    start_seconds: Annotated[float, typer.Option(min=0.0, help="Until ranks train.")] = 60.0,
    set_: options.Overrides = None,
    json_file: options.JsonFile = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Draw it as a PNG, too.")] = None,
) -> None:
    """Say what a training takes on 1 to 1,024 ranks: steps, hours, money, memory, reading, and what limits it."""

    output_file.check("--json", json_file)
    output_file.check("--plot", plot)
    counts = _counts(ranks)
    settings = loading.load(config, set_ or ())
    from mlspark.stages import plan as stage  # takes seconds: torch

    given = stage.Given(
        rows=None if rows is None else int(rows),
        row_bytes=row_bytes,
        rows_per_second=rows_per_second,
        step_seconds=step_ms / 1000,
        parameters=parameters,
        ranks_per_machine=ranks_per_machine,
        network_bytes_per_second=network_gbit * 1e9 / 8,
        latency_seconds=latency_us / 1e6,
        store_bytes_per_second=None if store_gbit is None else store_gbit * 1e9 / 8,
        start_seconds=start_seconds,
    )
    found = stage.plan(settings, given, ranks=counts or stage.RANKS, hours=hours, budget=budget)
    console = terminal.console()
    for part in (*heading(found), table(found), *advice(found)):
        console.print(part)
    if json_file:
        output_file.write("--json", json_file, json.dumps(found, indent=1) + "\n", what_stands="it is above")
    if plot:
        _draw(plot, settings.name, found)


def heading(found: dict[str, Any]) -> list[Text]:
    """Return what the figures rest on, in words."""
    of, speed, machine, training = (found[key] for key in ("table", "speed", "machine", "training"))
    store = machine["store_bytes_per_second"]
    return [
        Text(
            f"{of['rows']:,} rows in {of['row_groups']:,} row groups, {of['stored_bytes_per_row']:.0f} bytes each on disk; "
            f"{training['epochs']} epochs in batches of {training['batch']:,}; streaming.lanes {training['lanes']:,}"
        ),
        Text(
            f"one rank: {speed['rows_per_second']:,.0f} rows/s and {1000 * speed['step_seconds']:.2f} ms a step "
            f"({speed['source']}); {speed['parameters']:,} parameters"
        ),
        Text(
            f"{machine['tier']}: {machine['ranks']} ranks on {machine['cores']} cores, network "
            f"{_rate(machine['network_bytes_per_second'])}; store: {'as fast as that' if store is None else _rate(store)}"
        ),
    ]  # fmt: skip


def table(found: dict[str, Any]) -> Table:
    """Return the table of the numbers of ranks."""
    price = found["price"]
    currency = "" if price is None else price["currency"]
    shown = Table("ranks", "machines", "steps", "rows of a rank", "hours", currency, "efficiency", "windows", "reads",
                  "store", "limit")  # fmt: skip
    for column in shown.columns[:-1]:
        column.justify = "right"
    for row in found["ranks"]:
        apart = row["most_rows"] - row["least_rows"]
        shown.add_row(
            f"{row['ranks']:,}", f"{row['machines']:,}", f"{row['steps_per_epoch']:,}",
            f"{row['most_rows']:,}" + (f" (least {row['least_rows']:,})" if apart > 1 else ""),
            f"{row['hours']:,.2f}", "" if row["money"] is None else f"{row['money']:,.2f}", f"{row['efficiency']:.0%}",
            _size(row["window_bytes"]), _size(row["read_bytes"]), _rate(row["wanted_bytes_per_second"]), row["limit"],
            style="bold" if row["ranks"] == found["recommended"] else "",
        )  # fmt: skip
    return shown


def advice(found: dict[str, Any]) -> list[Text]:
    """Return what to take, and what was left out."""
    said = [Text(f"{count} ranks are left out: {why}") for count, why in found["left_out"].items()]
    hours, budget = found["limits"]["hours"], found["limits"]["budget"]
    asked = " and ".join(
        words
        for words, is_set in ((f"within {hours} hours", hours is not None), (f"for {budget}", budget is not None))
        if is_set
    )
    fastest = min(found["ranks"], key=lambda row: row["hours"])
    if found["recommended"] is None:
        return [
            *said,
            Text(f"none is done {asked}: the fastest, {fastest['ranks']:,} ranks, takes {fastest['hours']:,.2f} h"),
        ]
    why = asked or "the most that lose at most a fifth to one another"
    return [
        *said,
        Text(f"recommended: {found['recommended']:,} ranks ({why}): training.num_processes, and streaming.lanes"),
    ]


def _counts(text: str | None) -> list[int]:
    if text is None:
        return []
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise ConfigError(f"--ranks {text}: give whole numbers from 1 on, like 1,2,4")
    return counts


def _draw(file: str, name: str, found: dict[str, Any]) -> None:
    from mlspark.reports import scaling_plot  # matplotlib

    currency = "" if found["price"] is None else found["price"]["currency"]
    picture = scaling_plot.draw(
        f"{name}: {found['table']['rows']:,} rows", found["ranks"], currency=currency, recommended=found["recommended"]
    )
    try:
        Path(file).write_bytes(picture)
    except OSError as error:
        raise output_file.refused("--plot", file, error, what_stands="the figures are above") from error


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:,.0f} {unit}"
        count /= 1000
    raise AssertionError


def _rate(count: float) -> str:
    return f"{_size(count)}/s"
