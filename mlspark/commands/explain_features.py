"""`mlspark explain-features`: how one raw row becomes its numbers. Driver; starts no Spark."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.table import Table

from mlspark.commands import options, output_file, terminal
from mlspark.contracts import check_arrow
from mlspark.contracts.column_types import arrow_type
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError, ContractError
from mlspark.features import prepared
from mlspark.features.explain import Explained, explain
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.sources import markers
from mlspark.sources.csv import CsvSettings

app = options.app()


@app.command()
def explain_features(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="Settings, like conf/census.yaml.")],
    row: Annotated[
        str,
        typer.Argument(metavar="ROW", help="JSON object, @FILE with one, or a line as in the pipeline's CSV source."),
    ],
    set_: options.Overrides = None,
    version: options.Version = None,
    json_file: options.JsonFile = None,
) -> None:
    """Show how one raw row becomes its numbers: each output, its place in a batch, and what it means.

    In JSON a picture is "@FILE", or base64 text.
    """

    run(pipeline, row, overrides=set_ or [], version=version, json_file=json_file)


def run(file: str, row: str, *, overrides: list[str], version: int | None, json_file: str | None) -> None:
    """Show how `row` becomes its numbers with the encoder of a pipeline's feature table.

    Args:
        file: settings of the pipeline.
        row: a JSON object, "@FILE" with one, or a line as in the pipeline's CSV source; a picture in JSON is "@FILE" or
            base64.
        overrides: of settings.
        version: of the feature table; None: the newest.
        json_file: also write it there.

    Raises:
        ConfigError: the row is neither, or the settings are wrong.
        TableError: nothing was prepared yet.
        ContractError: the row breaks the contract; names column, rule and value.
    """
    output_file.check("--json", json_file)
    settings = loading.load([file], overrides)
    feature_table = prepared.at(settings.table("features"), version)
    contract = feature_table.contract.scoring_view().with_columns(feature_table.encoder.inputs)
    conformed = check_arrow.check(_as_table(_values(row, settings, feature_table.contract), contract), contract)
    explained = explain(feature_table.encoder, conformed)
    _show(
        explained,
        f"{feature_table.table}, version {feature_table.version}, encoder {feature_table.encoder.fingerprint[:12]}",
    )
    if json_file:
        rows = [asdict(entry) for entry in explained]
        text = json.dumps(rows, indent=1, default=str, ensure_ascii=False) + "\n"
        output_file.write("--json", json_file, text, what_stands="the same is above")


def _values(row: str, settings: Settings, contract: Contract) -> Mapping[str, Any]:
    """Return column -> value, or text that is to be cast."""
    if row.startswith("@"):
        row = _read(row[1:]).decode(errors="replace")
    if row.lstrip().startswith("{"):
        try:
            values: dict[str, Any] = json.loads(row)
        except ValueError as error:
            raise ConfigError(f"ROW: not a JSON object: {error}") from None
        return values
    source = settings.sources.learn
    names = [column.name for column in contract.columns]
    separator, missing = (source.separator, source.missing) if isinstance(source, CsvSettings) else (",", {})
    [fields] = csv.reader([row], delimiter=separator, skipinitialspace=True)
    if contract.label is not None and len(fields) == len(names) - 1:
        names.remove(contract.label)
    if len(fields) != len(names):
        raise ConfigError(
            f"ROW: {len(fields)} fields, expected {len(names)} ({', '.join(names)}), or a JSON object, or @FILE with one"
        )
    texts = {name: field.strip() for name, field in zip(names, fields, strict=True)}
    marked = {name: markers.of(missing, name, contract.column(name).source_name) for name in names}
    return {name: None if text in ("", *marked[name]) else text for name, text in texts.items()}


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"ROW @{file}: cannot be read ({error.strerror})") from None


def _as_table(values: Mapping[str, Any], contract: Contract) -> pa.Table:
    """Return one row of the contract's columns; those that are not given are missing."""
    arrays = {}
    for column in contract.columns:
        value, kind = values.get(column.source_name, values.get(column.name)), arrow_type(column.type)
        try:
            if isinstance(value, str) and column.is_binary:
                # Base64 text is none of a file's name, and `conversions` takes it.
                arrays[column.name] = pa.array([_read(value[1:]) if value.startswith("@") else value])
                continue
            is_to_be_cast = isinstance(value, str) and not column.is_text
            arrays[column.name] = pa.array([value]).cast(kind) if is_to_be_cast else pa.array([value], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            raise ContractError(
                f"contract {contract.name}: {column.name}.type: {value!r}, expected {column.type}"
            ) from None
    return pa.table(arrays)


def _show(explained: list[Explained], caption: str) -> None:
    table = Table(caption=caption, caption_justify="left", box=None, pad_edge=False)
    for name, style in {
        "feature": {"style": "bold"},
        "raw": {},
        "position": {"style": "dim"},
        "number": {"justify": "right"},
        "meaning": {},
    }.items():
        table.add_column(name, overflow="fold", **style)  # type: ignore[arg-type]
    before = None
    for entry in explained:
        raw = ", ".join(f"{name}={'missing' if value is None else value}" for name, value in entry.inputs.items())
        is_new = entry.feature != before
        number = f"{entry.number:.6g}" if isinstance(entry.number, float) else str(entry.number)
        cells = (entry.feature if is_new else "", raw if is_new else "", entry.position, number, entry.meaning)
        # Values of the data: not to be taken for markup.
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
        before = entry.feature
    terminal.console().print(table)
