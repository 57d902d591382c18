"""`mlspark contract infer` and `check`: a contract drafted from data, and data held against a contract. Driver."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import typer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlspark import config, session, source_arguments, storage
from mlspark.config import CsvSettings, JsonSettings, ScoringSettings, Settings, SourceSettings, SourcesSettings
from mlspark.contracts import contract as contracts
from mlspark.contracts import findings, infer
from mlspark.contracts import spark as conforming
from mlspark.contracts.contract import ColumnRule, Contract, DriftPolicy
from mlspark.contracts.findings import Findings
from mlspark.contracts.infer import Draft
from mlspark.errors import ConfigError, ContractError
from mlspark.sources import catalog
from mlspark.sources.source import Source, reading

_SAMPLE_LINES = 20
_SAMPLE_CHARACTERS = 100_000
_LENIENT = DriftPolicy(extra="ignore", missing="ignore", retyped="cast", reordered="ignore")


def run_infer(
    place: str,
    *,
    kind: str | None,
    options: Sequence[str],
    columns: str | None,
    name: str | None,
    label: str | None,
    into: str | None,
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
    with _session("contract infer", _spark_settings(settings)) as spark:
        draft = draft_from(
            spark, settings, name=name or source_arguments.default_name(place), label=label, columns=columns
        )
    for note in draft.notes:
        typer.echo(note, err=True)
    if into:
        storage.write_bytes(into, infer.to_text(draft.contract).encode())
        typer.echo(f"wrote {into}: {len(draft.contract.columns)} columns", err=True)
    else:
        typer.echo(infer.to_text(draft.contract), nl=False)


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
    if json_file and not Path(json_file).resolve().parent.is_dir():
        raise ConfigError(f"--json {json_file}: the folder does not exist")
    if place and contract_file:
        contract, root = contracts.load(contract_file), "."
        sources = {"source": _settings(place, kind, options)}
        more = _spark_settings(sources["source"])
        if not sources["source"].has_label:
            contract = contract.without_label()
    else:
        pipeline = config.load(files, overrides)
        contract, root = contracts.load(pipeline.contract), pipeline.sources.root
        more = catalog.spark_settings(pipeline)
        sources = pipeline.sources.rows
    with _session("contract check", more) as spark:
        report = check(spark, contract, sources, root=root)
    show(report, Console())
    if json_file:
        Path(json_file).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if report["problems"]:
        raise ContractError(f"contract {contract.name}: not met: {'; '.join(report['problems'])}")


def draft_from(
    spark: SparkSession,
    settings: SourceSettings,
    *,
    name: str,
    label: str | None = None,
    columns: str | None = None,
) -> Draft:
    """Return a draft from a source. Besides the passes of `infer.draft` it reads the first lines of text.

    Args:
        spark: the session.
        settings: of the source.
        name: of the contract.
        label: its label.
        columns: names, separated by commas, for CSV without a header; else they are c1, c2, ...

    Raises:
        SourceError: the source is absent, empty or unreadable.
        ContractError: see `infer.draft`.
        ConfigError: `columns` for a source that names its columns itself.
    """
    is_bare = isinstance(settings, CsvSettings) and not settings.header
    if columns is not None and not is_bare:
        raise ConfigError("--columns: the source names its columns itself; leave it out")
    source = catalog.find(spark, settings, root=".")
    with reading(source.uri):
        notes: list[str] = []
        found = catalog.columns(spark, source)
        named = {field.name: field.dataType.simpleString() for field in found} if found is not None else None
        if is_bare:
            names = [column.strip() for column in columns.split(",")] if columns else _bare_names(spark, source, notes)
            named = dict.fromkeys(names, "string")
            if len(named) < len(names):
                raise ConfigError(f"--columns {columns}: a name is given twice")
        draft = infer.draft(
            lambda contract: catalog.read(spark, source, contract),
            named,
            name=name,
            label=label,
            has_types=catalog.has_types(source),
            missing=settings.missing if isinstance(settings, JsonSettings) else "",
        )
    return Draft(draft.contract, draft.num_rows, (*notes, *draft.notes))


def check(
    spark: SparkSession, contract: Contract, sources: Mapping[str, SourceSettings], *, root: str
) -> dict[str, Any]:
    """Return what is wrong with the rows of sources, as prepare would find it. Writes nothing.

    Args:
        spark: the session.
        contract: what the rows must be.
        sources: name -> settings.
        root: what relative paths are taken from.

    Raises:
        SourceError: a source is absent, empty or unreadable.
        ContractError: a row rule cannot be evaluated.
    """
    problems, drifts, frames = [], {}, []
    found = {name: catalog.find(spark, settings, root=root) for name, settings in sources.items()}
    with reading(", ".join(source.uri for source in found.values())):
        for name, source in found.items():
            drifts[name], refusal = _drift(spark, source, contract)
            problems.extend([f"{name}: {refusal}"] if refusal else [])
            rows = conforming.conform(catalog.read(spark, source, contract), contract)
            frames.append(rows.withColumn("source", F.lit(name)))
        result = findings.find(reduce(DataFrame.unionByName, frames), contract, sources=list(found))
    return _report(contract, found, drifts, result, [*problems, *result.problems])


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
        for what, columns in source["drift"].items():
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


def _spark_settings(settings: SourceSettings) -> dict[str, str]:
    """Return what the session needs for one source, as if it were all that a pipeline has."""
    alone = Settings.model_construct(sources=SourcesSettings(learn=settings), scoring=ScoringSettings())
    return catalog.spark_settings(alone)


@contextmanager
def _session(name: str, more: Mapping[str, str]) -> Iterator[SparkSession]:
    spark = session.start(f"mlspark {name}", more)
    try:
        yield spark
    finally:
        spark.stop()


def _bare_names(spark: SparkSession, source: Source, notes: list[str]) -> list[str]:
    """Return c1, c2, ... for as many fields as most of the first lines have; reads those lines."""
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    one_column = Contract(name="lines", columns=(ColumnRule(name="c1", type="string"),))
    rows = catalog.read(spark, source.with_parts(source.parts[:1]), one_column).select("_raw")
    lines = [row[0] for row in rows.where(F.length("_raw") <= _SAMPLE_CHARACTERS).take(_SAMPLE_LINES)]
    if not lines:
        raise ContractError(f"{source.uri}: no line to tell the columns from; name them: --columns a,b,c")
    options = {"sep": settings.separator}
    schemas = spark.range(1).select(*(F.schema_of_csv(F.lit(line), options) for line in lines)).collect()[0]
    counts = [len(re.findall(r"\b_c\d+: ", schema)) for schema in schemas]
    num_fields = Counter(counts).most_common(1)[0][0]
    whole = [line.split(settings.separator) for line, count in zip(lines, counts, strict=True) if count == num_fields]
    if len(whole) > 1 and not any(map(_is_number, whole[0])) and any(map(_is_number, whole[1])):
        notes.append("the first line may name the columns: if so, draft again with --option header=true")
    return [f"c{number}" for number in range(1, num_fields + 1)]


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", text))


def _drift(spark: SparkSession, source: Source, contract: Contract) -> tuple[dict[str, Any], str]:
    """Return (how the source's columns differ, why that is refused or "")."""
    columns = catalog.columns(spark, source)
    if columns is None:
        return {}, ""
    has_types = catalog.has_types(source)
    found = conforming.drift(columns, contract.model_copy(update={"drift": _LENIENT}), has_types=has_types)
    try:
        conforming.drift(columns, contract, has_types=has_types)
    except ContractError as error:
        return found.to_json(), str(error).removeprefix(f"contract {contract.name}: ")
    return found.to_json(), ""


def _report(
    contract: Contract,
    found: Mapping[str, Source],
    drifts: Mapping[str, dict[str, Any]],
    result: Findings,
    problems: Sequence[str],
) -> dict[str, Any]:
    sources = {}
    for name, source in found.items():
        counts = result.account.sources[name]
        sources[name] = {
            "uri": source.uri,
            "kind": source.settings.kind,
            "rows_read": counts["rows_read"],
            "rows_good": counts["rows_good"],
            "rows_bad": counts["rows_quarantined"],
            "missing": {
                key.removeprefix("missing_"): n for key, n in counts.items() if key.startswith("missing_") and n
            },
            "drift": drifts[name],
        }
    rules = {
        reason: {"rows": rows, "examples": [vars(example) for example in result.examples.get(reason, ())]}
        for reason, rows in result.account.reasons.items()
    }
    return {
        "contract": contract.name,
        "is_met": not problems,
        "problems": list(problems),
        "sources": sources,
        "rules": rules,
    }
