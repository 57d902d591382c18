"""A contract drafted from a source. Driver."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts import infer
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.infer import Draft
from mlspark.contracts.own_columns import RAW
from mlspark.contracts.plain_shapes import OnlySparkKnows
from mlspark.contracts.shapes import SparkRows
from mlspark.errors import ConfigError, ContractError
from mlspark.sources import catalog, plain_csv, typed_rows
from mlspark.sources.csv import CsvSettings
from mlspark.sources.json import JsonSettings
from mlspark.sources.plain_csv import SAMPLE_CHARACTERS, SAMPLE_LINES
from mlspark.sources.settings import SourceSettings
from mlspark.sources.source import Source, reading


def draft_without_spark(
    settings: SourceSettings,
    *,
    name: str,
    label: str | None = None,
    columns: str | None = None,
    closed: bool = False,
) -> Draft | None:
    """Return the draft that `draft_from` makes, of a small file so plain that it needs no Spark; None of all others.

    Args:
        settings: of the source.
        name: of the contract.
        label: its label.
        columns: names, separated by commas, for CSV without a header; else they are c1, c2, ...
        closed: see `infer.draft`.

    Raises:
        ContractError: see `infer.draft`.
        SourceError: a text for missing values is of a column that is not there.
        ConfigError: `columns` for a source that names its columns itself.
    """
    if not isinstance(settings, CsvSettings):
        return None
    _check_columns(settings, columns)
    rows = plain_csv.read(settings, root=".")
    if rows is None:
        return None
    notes: list[str] = []
    names = _given(columns) if columns else list(rows.header or ())
    if not names:
        names = _numbered([rows.num_fields] * len(rows.first_lines), rows.first_lines, settings.separator, notes)
    if len(names) != rows.num_fields:
        return None
    try:
        draft = infer.draft(rows, dict.fromkeys(names, "string"), name=name, label=label, closed=closed)
    except OnlySparkKnows:
        return None
    return replace(draft, notes=(*notes, *draft.notes))


def draft_from(
    spark: SparkSession,
    settings: SourceSettings,
    *,
    name: str,
    label: str | None = None,
    columns: str | None = None,
    closed: bool = False,
) -> Draft:
    """Return a draft from a source. Besides the passes of `infer.draft` it reads the first lines of text.

    Args:
        spark: the session.
        settings: of the source.
        name: of the contract.
        label: its label.
        columns: names, separated by commas, for CSV without a header; else they are c1, c2, ...
        closed: see `infer.draft`.

    Raises:
        SourceError: the source is absent, empty or unreadable.
        ContractError: see `infer.draft`.
        ConfigError: `columns` for a source that names its columns itself.
    """
    is_bare = _check_columns(settings, columns)
    source = catalog.find(spark, settings, root=".")
    with reading(source.uri):
        notes: list[str] = []
        schema = catalog.columns(spark, source)
        unreadable = typed_rows.unreadable(schema) if schema is not None else {}
        notes += [f"left out: {why}" for why in unreadable.values()]
        named = None
        if schema is not None:
            named = {field.name: field.dataType.simpleString() for field in schema if field.name not in unreadable}
        if is_bare:
            named = dict.fromkeys(_given(columns) if columns else _bare_names(spark, source, notes), "string")
        draft = infer.draft(
            SparkRows(
                lambda contract: catalog.read(spark, source, contract),
                settings.missing if isinstance(settings, JsonSettings) else {},
            ),
            named,
            name=name,
            label=label,
            has_types=catalog.has_types(source),
            closed=closed,
        )
    return replace(draft, notes=(*notes, *draft.notes))


def _check_columns(settings: SourceSettings, columns: str | None) -> bool:
    """Return whether the source does not name its columns; raises ConfigError where it does, and `columns` too."""
    is_bare = isinstance(settings, CsvSettings) and not settings.header
    if columns is not None and not is_bare:
        raise ConfigError("--columns: the source names its columns itself; leave it out")
    return is_bare


def _given(columns: str) -> list[str]:
    names = [column.strip() for column in columns.split(",")]
    if len(set(names)) < len(names):
        raise ConfigError(f"--columns {columns}: a name is given twice")
    return names


def _bare_names(spark: SparkSession, source: Source, notes: list[str]) -> list[str]:
    """Return c1, c2, ... for as many fields as most of the first lines have; reads those lines."""
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    one_column = Contract(name="lines", columns=(ColumnRule(name="c1", type="string"),))
    first = replace(source, parts=source.parts[:1], settings=settings.model_copy(update={"missing": {}}))
    rows = catalog.read(spark, first, one_column).select(RAW)
    lines = [row[0] for row in rows.where(F.length(RAW) <= SAMPLE_CHARACTERS).take(SAMPLE_LINES)]
    if not lines:
        raise ContractError(f"{source.uri}: no line to tell the columns from; name them: --columns a,b,c")
    options = {"sep": settings.separator}
    schemas = spark.range(1).select(*(F.schema_of_csv(F.lit(line), options) for line in lines)).collect()[0]
    counts = [len(re.findall(r"\b_c\d+: ", schema)) for schema in schemas]
    return _numbered(counts, lines, settings.separator, notes)


def _numbered(counts: Sequence[int], lines: Sequence[str], separator: str, notes: list[str]) -> list[str]:
    """Return c1, c2, ... for as many fields as most lines have, and note where the first line looks like a header."""
    num_fields = Counter(counts).most_common(1)[0][0]
    whole = [line.split(separator) for line, count in zip(lines, counts, strict=True) if count == num_fields]
    if len(whole) > 1 and not any(map(_is_number, whole[0])) and any(map(_is_number, whole[1])):
        notes.append("the first line may name the columns: if so, draft again with --option header=true")
    return [f"c{number}" for number in range(1, num_fields + 1)]


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", text))
