"""Good rows of a source become rows of the score table. Driver, lazy, but for what runs in `_scorer` on executors."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.core.broadcast import Broadcast
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from mlspark import tables
from mlspark.contracts import naming, own_columns
from mlspark.contracts.column_types import arrow_type
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import ROW_NUMBER, SOURCE_FILE
from mlspark.errors import ConfigError, TableError
from mlspark.features import encode_spark, split
from mlspark.features.kinds.image import looked_sql
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.registry.package import Package
from mlspark.registry.versions import ModelVersion
from mlspark.scoring.predictor import Predictor


def contract_of_rows(package: Package, *, has_label: bool, kept: Sequence[ColumnRule] = ()) -> Contract:
    """Return what a source of rows to be scored holds, columns in the order in which they were trained on, then `kept`.

    The label, in its place, and the sample weight are read where they are, and not checked: they decide no score.
    """
    whole, checked = package.contract, package.scoring_contract
    rules = {column.name: column for column in checked.columns}
    unchecked = {
        column.name: ColumnRule(name=column.name, header=column.header, type="string", max_missing_share=1.0)
        for column in whole.columns
        if column.name not in rules and (has_label or column.name != whole.label)
    }
    columns = (rules.get(column.name, unchecked.get(column.name)) for column in whole.columns)
    return checked.model_copy(update={"columns": (*(column for column in columns if column is not None), *kept)})


def kept_columns(package: Package, keep: Sequence[str], types: Mapping[str, str] | None) -> list[ColumnRule]:
    """Return the columns of a source that scores are to have besides those of the contract.

    Args:
        package: the version.
        keep: their names in the source.
        types: columns of the source -> Spark types; None where it names none: rows of CSV without a header.

    Raises:
        ConfigError: a column is not there, or has the name of one that the score table has.
    """
    wanted = [name for name in keep if name not in {*package.contract.names_by_header, *package.contract.names}]
    if wanted and types is None:
        raise ConfigError(f"scoring.keep: {', '.join(wanted)}: the rows of scoring.source have no names; leave it out")
    if missing := [name for name in wanted if name not in (types or {})]:
        raise ConfigError(f"scoring.keep: {', '.join(missing)}: not a column of the source ({', '.join(types or {})})")
    kept, untyped = naming.usable({name: (types or {})[name] for name in wanted})
    if untyped:
        kept, _ = naming.usable(dict.fromkeys(wanted, "string"))
    taken = {*package.contract.names, *own_columns.OF_SCORES, *package.task.prediction_types}
    if clashing := sorted({rule.name for rule in kept if rule.name.lower() in {name.lower() for name in taken}}):
        raise ConfigError(
            f"scoring.keep: {', '.join(clashing)}: the score table has columns of this name; leave it out"
        )
    return [rule.model_copy(update={"max_missing_share": 1.0}) for rule in kept]


def check(package: Package, table: str, *, kept: Sequence[ColumnRule] = ()) -> None:
    """Refuse a version whose scores cannot stand in a score table. Reads the table's log alone.

    Raises:
        TableError: the table holds scores of other types, as of another kind of task.
    """
    if not tables.exists(table):
        return
    names = written_names(package, kept)
    columns = (*package.contract.columns, *kept)
    wanted = {names[column.name]: column.type for column in columns if column.name in names}
    wanted |= package.task.prediction_types
    schema = StructType.fromJson(json.loads(tables.opened(table).schema().to_json()))
    different = [
        f"{field.name} is {field.dataType.simpleString()}, now {wanted[field.name]}"
        for field in schema
        if field.name in wanted and field.dataType.simpleString() != wanted[field.name]
    ]
    different += [
        f"{field.name} is there, now it is not"
        for field in schema
        if field.name.startswith("probabilit") and field.name not in wanted
    ]
    if different:
        raise TableError(
            f"{table}: holds scores of another kind ({'; '.join(different)}); move the table away, or give the pipeline "
            f"another `name`"
        )


def written_names(package: Package, kept: Sequence[ColumnRule] = ()) -> dict[str, str]:
    """Return each column of the contract, and of `kept` -> its name in the score table, which has columns of its own.

    Pictures are left out: a score table holds no second copy of them.
    """
    names = (*(rule.name for rule in package.contract.columns if not rule.is_binary), *(rule.name for rule in kept))
    return own_columns.beside(names, (*own_columns.OF_SCORES, *package.task.prediction_types))


def scored(
    good: DataFrame,
    model: ModelVersion,
    *,
    score_id: str,
    source_version: str,
    kept: Sequence[ColumnRule] = (),
    allow_decoder: bool = False,
) -> DataFrame:
    """Return the contract's columns and `kept` with row_id, the predictions and where they come from. Lazy.

    A column of the contract that is called like one of the others has `raw_` in front, see `written_names`.

    Args:
        good: good rows with the encoder's inputs, what `intake.pictures.look` found in pictures, `SOURCE_FILE` and
            `ROW_NUMBER`, and the label as text where the source has it.
        model: the version.
        kept: further columns of the rows, from `kept_columns`.
        score_id: of this scoring.
        source_version: SHA-256 of what was scored.
        allow_decoder: see `Predictor`.
    """
    package = model.package
    contract, encoder = package.contract, package.encoder
    tensors = encoder.tensors(package.task)
    names = [column.name for column in package.scoring_contract.columns]
    written = written_names(package, kept)
    columns = [F.col(name).alias(written[name]) for name in names if name in written]
    columns += [_label(good, contract).alias(written[contract.label])] if contract.label else []
    columns += [F.col(rule.name).alias(written[rule.name]) for rule in kept]
    prepared, encoded = encode_spark.encoded(good, encoder)
    by_name = dict(zip((output.name for output in encoder.outputs), encoded, strict=True))
    pixels = {image.name: F.expr(f"{looked_sql(image.column, image.name)}.pixels") for image in encoder.images}
    arrays = {
        spec.name: pixels[spec.name] if spec.picture else F.array(*(by_name[name] for name in spec.columns))
        for spec in tensors.specs
    }
    inputs = prepared.select(
        *columns,
        split.row_id(contract.unique_key or names, binary=contract.binary),
        F.col(SOURCE_FILE).alias("source_file"),
        F.col(ROW_NUMBER).alias("row_number"),
        *(arrays[spec.name].alias(_column(spec)) for spec in tensors.specs),
    )
    num_kept = len(columns) + 3
    predictions = [
        StructField(name, _spark_type(good, kind), nullable=False)
        for name, kind in package.task.prediction_types.items()
    ]
    files = good.sparkSession.sparkContext.broadcast(dict(package.files))
    scores = inputs.mapInArrow(
        _scorer(files, tensors, allow_decoder), schema=StructType([*inputs.schema.fields[:num_kept], *predictions])
    )
    return scores.select(
        *scores.columns,
        F.lit(model.name).alias("model_name"),
        F.lit(model.version).alias("model_version"),
        F.lit(source_version).alias("source_version"),
        F.lit(score_id).alias("score_id"),
    )


def _label(good: DataFrame, contract: Contract) -> Column:
    """Return the label in its type, null where the source has none or its text is no such value."""
    label = contract.label
    kind = contract.column(label).type if label else ""
    value = f"try_cast(`{label}` AS {kind})" if label in good.columns else f"CAST(NULL AS {kind})"
    return F.expr(value)


def _scorer(
    files: Broadcast[dict[str, bytes]], tensors: Tensors, allow_decoder: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what scores the rows of a partition, on an executor."""

    def score_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictor = _predictor(files, allow_decoder)
        types = predictor.task.prediction_types
        for batch in batches:
            predictions = predictor.predict_encoded(
                {spec.name: _tensor(batch.column(_column(spec)), spec) for spec in tensors.specs}
            )
            rows = batch.drop_columns([_column(spec) for spec in tensors.specs])
            for name, values in predictions.items():
                rows = rows.append_column(name, pa.array(values.tolist(), arrow_type(types[name])))
            yield rows

    return score_partition


def _predictor(files: Broadcast[dict[str, bytes]], allow_decoder: bool) -> Predictor:
    """Return the predictor of a broadcast package, made once for each Python worker."""
    return _made(tuple(sorted(files.value.items())), allow_decoder)


@lru_cache(maxsize=2)
def _made(files: tuple[tuple[str, bytes], ...], allow_decoder: bool) -> Predictor:
    return Predictor(Package(dict(files)), allow_decoder=allow_decoder)


def _tensor(column: pa.Array, spec: TensorSpec) -> NDArray[Any]:
    if spec.picture is not None:
        # Not joined to bytes: torch warns of memory that cannot be written to.
        pixels = np.frombuffer(bytearray().join(column.to_pylist()), np.uint8)
        return pixels.reshape(len(column), *spec.shape)
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False).astype(spec.dtype)
    return values.reshape(len(column), len(spec.columns))


def _column(spec: TensorSpec) -> str:
    """Return the column that a tensor's rows are in."""
    return f"{own_columns.PREFIX}{spec.name}"


def _spark_type(rows: DataFrame, kind: str) -> Any:
    return rows.sparkSession.createDataFrame([], f"value {kind}").schema[0].dataType
