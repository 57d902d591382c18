"""Rows, each with its prediction by a registered version and what made it, or with why it is refused. Driver."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage
from mlspark.contracts.check_arrow import Broken
from mlspark.contracts.own_columns import REASONS, ROW_ID, ROW_NUMBER
from mlspark.errors import ConfigError, RegistryError
from mlspark.evaluation import split_rows
from mlspark.evaluation.split_rows import REFERENCE_ROWS
from mlspark.features import split
from mlspark.intake import joins as joining
from mlspark.intake import pictures, row_numbers
from mlspark.intake.joins import Join
from mlspark.intake.rows import compare_columns, conform, kept
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import batch
from mlspark.scoring.explain import Explainer, Explanation, needs_reference
from mlspark.scoring.predictor import Verdicts
from mlspark.session import computed_in_utc
from mlspark.sources import catalog
from mlspark.sources.settings import SourceSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.intervals import Floats

_OF_TREES = "the mean output of the trees over the rows that they learnt from"


@dataclass(frozen=True)
class RawRows:
    """Raw rows that are to be explained, and those that were refused where they were read."""

    rows: pa.Table | Sequence[Mapping[str, Any]]
    """n rows that the predictor is asked about."""
    numbers: Sequence[int]
    """(n,): place of each among all rows, from 0."""
    row_ids: Sequence[int] = ()
    """(n,) as in the score table, or empty."""
    refused: Mapping[int, tuple[Broken, ...]] = field(default_factory=dict)
    """Place of a row -> rules that it breaks."""


@dataclass(frozen=True)
class Added:
    """What raw columns add to the explained number of a row."""

    columns: tuple[str, ...]
    """One column, or several that features are made of together."""
    values: tuple[Any, ...]
    """Raw value of each, in the contract's type; None: missing."""
    adds: float

    @property
    def name(self) -> str:
        return " x ".join(self.columns)


@dataclass(frozen=True)
class ExplainedRow:
    """What is said of one row: a prediction with what made it, or the rules that the row breaks."""

    number: int
    row_id: int | None
    refused: tuple[Broken, ...] = ()
    prediction: Mapping[str, Any] = field(default_factory=dict)
    """Columns of the score table; empty where the row is refused."""
    explained: str = ""
    """The explained number in words."""
    output: float = 0.0
    baseline: float = 0.0
    error: float = 0.0
    """Baseline and all contributions less the output."""
    steps: int = 0
    added: tuple[Added, ...] = ()
    """The greatest first."""


@dataclass(frozen=True)
class Explained:
    """Rows as they were asked for, in order."""

    model: ModelVersion
    rows: tuple[ExplainedRow, ...]
    method: str
    baseline: str
    """What the rows' numbers begin at, in words."""
    explanation: Explanation


def explainer(model: ModelVersion, root: str, *, allow_decoder: bool = False) -> tuple[Explainer, str]:
    """Return what explains rows by a version, and in words what their numbers begin at.

    Args:
        model: the version.
        root: absolute storage.root that the version was trained with: networks begin at the mean of its training rows.
        allow_decoder: see `Predictor`.

    Raises:
        RegistryError: these rows are not there.
        DatasetError, TableError: they cannot be read any more.
    """
    reference, begins = reference_rows(model, root)
    return Explainer(model.package, reference, allow_decoder=allow_decoder), begins


def reference_rows(model: ModelVersion, root: str) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the tensors of the rows that contributions begin at, {} for trees, and in words what they begin at.

    Arguments and errors of `explainer`.
    """
    if not needs_reference(model.package):
        return {}, _OF_TREES
    snapshot_uri = storage.join(root, "runs", model.package.provenance["run_id"], "snapshot.json")
    if not storage.exists(snapshot_uri):
        raise RegistryError(
            f"model {model.name} version {model.version}: {snapshot_uri} is missing, which names the rows that it learnt "
            f"from; contributions of a network begin at their mean: give the storage.root that it was trained with"
        )
    snapshot = Snapshot.load(snapshot_uri)
    tensors = model.package.encoder.tensors(model.package.task)
    reference = split_rows.drawn(snapshot.where(split=split.TRAIN), tensors, most=REFERENCE_ROWS)
    begins = (
        f"the output for the mean of {len(reference['row_id'])} training rows of {snapshot.table}, version "
        f"{snapshot.version} (numbers, pixels and vectors of categories)"
    )
    return reference, begins


def explained(
    model: ModelVersion, of_version: Explainer, raw: RawRows, *, baseline: str, num_maps: int = 0
) -> Explained:
    """Return what is said of the rows, in their order.

    Args:
        model: the version.
        of_version: from `explainer`.
        raw: the rows.
        baseline: from `explainer`.
        num_maps: predicted rows whose pictures and maps are wanted, the first ones.

    Raises:
        ContractError: the columns of a table are not those of the contract.
        AttributionError: the version cannot be explained.
    """
    verdicts, explanation = of_version.explain(raw.rows, num_maps=num_maps)
    broken: dict[int, list[Broken]] = {}
    for each in verdicts.broken:
        broken.setdefault(each.row, []).append(each)
    rows = [ExplainedRow(number, None, reasons) for number, reasons in raw.refused.items()]
    rows += [ExplainedRow(raw.numbers[place], _id(raw, place), tuple(reasons)) for place, reasons in broken.items()]
    rows += _predicted(raw, verdicts, explanation)
    rows.sort(key=lambda row: row.number)
    return Explained(model, tuple(rows), explanation.method, baseline, explanation)


def _predicted(raw: RawRows, verdicts: Verdicts, explanation: Explanation) -> list[ExplainedRow]:
    """Return the rows that have a prediction."""
    columns = {name: values.tolist() for name, values in verdicts.predictions.items()}
    order, error = explanation.values, explanation.error
    rows = []
    names = {name for columns_ in explanation.columns for name in columns_}
    good = verdicts.rows.select(sorted(names)).take(pa.array(verdicts.good, pa.int64())).to_pylist()
    for place, row in enumerate(verdicts.good.tolist()):
        rows.append(
            ExplainedRow(
                raw.numbers[row],
                _id(raw, row),
                prediction={name: values[place] for name, values in columns.items()},
                explained=explanation.numbers[place],
                output=float(explanation.output[place]),
                baseline=float(explanation.start[place]),
                error=float(error[place]),
                steps=int(explanation.steps[place]),
                added=_added(explanation.columns, order[place], good[place]),
            )
        )
    return rows


def _added(columns: Sequence[tuple[str, ...]], values: Floats, row: Mapping[str, Any]) -> tuple[Added, ...]:
    parts = [
        Added(names, tuple(row[name] for name in names), float(value))
        for names, value in zip(columns, values, strict=True)
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.adds)))


def _id(raw: RawRows, place: int) -> int | None:
    return raw.row_ids[place] if len(raw.row_ids) else None


@computed_in_utc
def of_source(
    spark: SparkSession,
    model: ModelVersion,
    source_settings: SourceSettings,
    joins: Sequence[Join],
    *,
    root: str,
    row_ids: Sequence[int] = (),
    most: int = 0,
) -> RawRows:
    """Return rows of a source, read, checked and joined as the score job does.

    The contract's limits for the data as a whole are not applied: these are single rows.

    Args:
        spark: the session.
        model: the version whose contract the rows must meet.
        source_settings: of the source.
        joins: that the version needs.
        root: `sources.root`.
        row_ids: of rows, as in the score table; empty: the first rows.
        most: rows, of the first ones; 0: all.

    Raises:
        SourceError: the source is absent or empty, or cannot be read.
        ContractError: its columns are refused by the contract's policy.
        ConfigError: no row has one of the ids.
    """
    package = model.package
    source = catalog.find(spark, source_settings, root=root)
    scoring = package.scoring_contract
    contract = batch.contract_of_rows(package, has_label=source_settings.has_label)
    compare_columns(spark, {"score": source}, scoring, ignored=package.ignored, refuses=True)
    features = pictures.fitted(package.encoder, for_model=True)
    names = [column.name for column in scoring.columns]
    with ExitStack() as stack:
        conformed = row_numbers.with_position(conform(spark, {"score": source}, contract, features))
        rows = stack.enter_context(kept(conformed))
        stack.enter_context(joining.computing(joins))
        joined = stack.enter_context(joining.read(spark, joins))
        chosen = _chosen(row_numbers.numbered(rows, rows), most if not row_ids else 0)
        good = joining.attach(chosen.where(F.size(REASONS) == 0), joined.good, joins)
        row_id = split.row_id(package.contract.unique_key or names, binary=package.contract.binary).alias(ROW_ID)
        good = good.select(*package.input_contract.names, row_id, F.col(ROW_NUMBER))
        good = good.where(F.col(ROW_ID).isin(list(row_ids))) if row_ids else good
        table = good.orderBy(ROW_NUMBER).toArrow()
        bad = [] if row_ids else chosen.where(F.size(REASONS) > 0).select(ROW_NUMBER, REASONS).collect()
    found = table.column(ROW_ID).to_pylist()
    if missing := [row_id for row_id in row_ids if row_id not in set(found)]:
        raise ConfigError(
            f"--row-id {', '.join(map(str, missing))}: no good row of {source.uri} has it; give the row_id of a row in the "
            f"score table"
        )
    refused = {
        row[ROW_NUMBER]: tuple(
            Broken(row[ROW_NUMBER], reason["column"], reason["rule"], reason["value"]) for reason in row[REASONS]
        )
        for row in bad
    }
    return RawRows(table.drop_columns([ROW_ID, ROW_NUMBER]), table.column(ROW_NUMBER).to_pylist(), found, refused)


def _chosen(rows: DataFrame, most: int) -> DataFrame:
    return rows.where(F.col(ROW_NUMBER) < most) if most else rows
