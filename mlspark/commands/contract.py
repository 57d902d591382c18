"""`mlspark contract infer` and `check`: a contract drafted from data, and data held against a contract. Driver."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark import session, storage
from mlspark.commands import java_options, options, output_file, source_arguments, stage_progress, terminal
from mlspark.contracts import contract as contracts
from mlspark.contracts import infer as drafting
from mlspark.errors import ConfigError, ContractError
from mlspark.intake import check as checking
from mlspark.intake import draft as drafts
from mlspark.settings import loading
from mlspark.sources import catalog
from mlspark.sources.catalog import READERS
from mlspark.sources.settings import SourceSettings

app = options.app()
Kind = Annotated[
    str | None,
    typer.Option(help=f"How the data is stored; one of {', '.join(READERS)}; its name tells, if you do not."),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="As in the sources of a configuration; may be repeated. csv: header=true, separator=';', missing='?', "
        "missing=NA, missing.age=-1, ...",
    ),
]


@app.command()
def infer(
    source: Annotated[str, typer.Argument(help="Path or URI, database.table, or jdbc: URL.")],
    kind: Kind = None,
    option: Option = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Names for CSV without a header; else c1, c2, ...")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The contract's; else from the source.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to be predicted.")] = None,
    into: Annotated[str | None, typer.Option(metavar="FILE", help="A new file; else it is printed.")] = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Take no other values than those seen: ranges, lists, lengths, shares.")
    ] = False,
) -> None:
    """Draft a contract from data: names, types, missing values, the label's values and a key, as seen."""

    run_infer(
        source, kind=kind, options=option or (), columns=columns, name=name, label=label, into=into, closed=closed
    )


@app.command()
def check(
    source: Annotated[
        str | None, typer.Argument(help="With --contract: path or URI, database.table, jdbc: URL.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="FILE", help="Settings: checks sources.learn, .validation and .test."),
    ] = None,
    set_: options.Overrides = None,
    contract_file: Annotated[
        str | None, typer.Option("--contract", metavar="FILE", help="The source's contract.")
    ] = None,
    kind: Kind = None,
    option: Option = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
) -> None:
    """Tell which rows and rules fail, without writing; status 2 when prepare would refuse the data as a whole."""

    run_check(
        source,
        kind=kind,
        options=option or (),
        contract_file=contract_file,
        files=config or (),
        overrides=set_ or (),
        json_file=json_file,
    )


def run_infer(
    place: str,
    *,
    kind: str | None,
    options: Sequence[str],
    columns: str | None,
    name: str | None,
    label: str | None,
    into: str | None,
    closed: bool,
) -> None:
    """Draft a contract and print it, or write it to the file `into`; notes go to standard error.

    Raises:
        ConfigError: an option is wrong, or `into` exists.
        SourceError: the source is absent, empty or unreadable.
        ContractError: no contract can be drafted from it.
    """
    if into and storage.exists(into):
        raise ConfigError(f"--into {into}: exists already; remove it, or give another file")
    settings = _settings(place, kind, options)
    name = name or source_arguments.default_name(place)
    draft = drafts.draft_without_spark(settings, name=name, label=label, columns=columns, closed=closed)
    if draft is None:
        with _session("contract infer", [settings], root=".") as spark:
            draft = drafts.draft_from(spark, settings, name=name, label=label, columns=columns, closed=closed)
    for note in draft.notes:
        typer.echo(note, err=True)
    if into:
        try:
            storage.write_bytes(into, drafting.to_text(draft.contract).encode())
        except OSError as error:
            raise output_file.refused("--into", into, error, what_stands="without it the draft is printed") from error
        typer.echo(f"wrote {into}: {len(draft.contract.columns)} columns", err=True)
    else:
        typer.echo(drafting.to_text(draft.contract), nl=False)


def run_check(
    place: str | None,
    *,
    kind: str | None,
    options: Sequence[str],
    contract_file: str | None,
    files: Sequence[str],
    overrides: Sequence[str],
    json_file: str | None,
) -> None:
    """Print what is wrong with the data of a configuration, or of one source.

    Raises:
        ContractError: the data does not meet the contract; says all reasons in one line, after the report.
        ConfigError: settings are wrong.
        SourceError: a source is absent, empty or unreadable.
    """
    if bool(files) == bool(place) or bool(place) != bool(contract_file):
        raise ConfigError("contract check: give either --config FILE, or SOURCE and --contract FILE")
    if place and overrides:
        raise ConfigError("--set: changes settings of --config; give --option KEY=VALUE for SOURCE")
    if files and (kind or options):
        raise ConfigError("--kind, --option: belong to SOURCE; give --set sources.learn.KEY=VALUE with --config")
    output_file.check("--json", json_file)
    if place and contract_file:
        contract, root = contracts.load(contract_file), "."
        sources = {"source": _settings(place, kind, options)}
        all_sources = list(sources.values())
        if not sources["source"].has_label:
            contract = contract.scoring_view()
    else:
        pipeline = loading.load(files, overrides)
        contract, root = contracts.load(pipeline.contract), pipeline.sources.root
        sources, all_sources = pipeline.sources.rows, list(pipeline.all_sources.values())
    with _session("contract check", all_sources, root=root) as spark:
        report = checking.check(spark, contract, sources, root=root)
    show(report, terminal.console())
    if json_file:
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        output_file.write("--json", json_file, text, what_stands="the report is above")
    if report["problems"]:
        raise ContractError(f"contract {contract.name}: not met: {'; '.join(report['problems'])}")


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a report of `check` for a person."""
    sources = Table("source", "", "read", "good", "bad", title=f"contract {report['contract']}", title_justify="left")
    for name, source in report["sources"].items():
        counts = (f"{source[key]:,}" for key in ("rows_read", "rows_good", "rows_bad"))
        sources.add_row(name, Text(source["uri"], overflow="fold"), *counts)
    for column in sources.columns[2:]:
        column.justify = "right"
    console.print(sources)
    for name, source in report["sources"].items():
        for what, columns in source["schema_differences"].items():
            listed = ", ".join(columns) if isinstance(columns, list) else "yes"
            console.print(Text(f"{name}: {what} columns: {listed}"))
    if report["rules"]:
        rules = Table("rule", "rows", "for example", "row")
        rules.columns[1].justify = "right"
        for reason, rule in report["rules"].items():
            for number, example in enumerate(rule["examples"]):
                first = (reason, f"{rule['rows']:,}") if number == 0 else ("", "")
                value = "missing" if example["value"] is None else example["value"]
                rules.add_row(*first, Text(value, overflow="fold"), Text(example["row"] or "", overflow="fold"))
        console.print(rules)
    for problem in report["problems"]:
        console.print(Text(f"refused: {problem}"))
    if not report["problems"]:
        console.print("The data meets the contract" + ("; bad rows would be quarantined" if report["rules"] else ""))


def _settings(place: str, kind: str | None, options: Sequence[str]) -> SourceSettings:
    if kind is None:
        kind, why = source_arguments.guess_kind(place)
        typer.echo(f"{place}: taken for {kind}, because {why}", err=True)
    return source_arguments.settings(place, kind, options)


@contextmanager
def _session(name: str, sources: Sequence[SourceSettings], *, root: str) -> Iterator[SparkSession]:
    read = {str(place): source.model_dump(mode="json") for place, source in enumerate(sources)}
    is_small = java_options.are_small({"sources": {**read, "root": root}}, ["prepare"])
    java = java_options.small() if is_small else ""
    spark = session.start(f"mlspark {name}", catalog.spark_settings(sources), java_options=java)
    if is_small:
        session.plan_ahead(spark)
    try:
        with stage_progress.shown(spark, name, output=sys.stderr):
            yield spark
    finally:
        session.stop(spark)
