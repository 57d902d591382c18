"""Good rows of a source become rows of the score table. Driver, lazy; what executors run is in `partitions`."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructField, StructType

from mlspark import python_workers, session, tables
from mlspark.contracts import naming, own_columns
from mlspark.contracts.column_types import family
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import ROW_NUMBER, SOURCE_FILE
from mlspark.errors import ConfigError, ContractError, TableError, raised_by_worker
from mlspark.features import encode_arrow, encode_spark, split
from mlspark.features.kinds.image import looked_sql
from mlspark.registry.package import Package
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import contributions, partitions
from mlspark.scoring.contributions import Explaining
from mlspark.scoring.partitions import Scorer

_PREDICTED = f"{own_columns.PREFIX}predicted"
_ROWS_AT_ONCE = 65_536
_ROWS_PER_BATCH, _ROWS_OF_SPARK = "spark.sql.execution.arrow.maxRecordsPerBatch", "10000"
"""The setting, and what Spark has of itself."""
_HAVE_RANGES = ("whole", "decimal", "floating", "string", "date", "timestamp")


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


def check(package: Package, table: str, *, kept: Sequence[ColumnRule] = (), is_explained: bool = False) -> None:
    """Refuse a version whose scores cannot stand in a score table. Reads the table's log alone.

    Args:
        package: the version.
        table: the score table.
        kept: columns besides the contract's.
        is_explained: whether there are to be contributions.

    Raises:
        TableError: the table holds scores of other types, as of another kind of task.
        ConfigError: there is a column of the name that contributions have.
    """
    if is_explained and contributions.COLUMN in {name.lower() for name in written_names(package, kept).values()}:
        raise ConfigError(
            f"scoring.explain: the rows have a column {contributions.COLUMN}, as the score table then would; leave it out"
        )
    if not tables.exists(table):
        return
    names = written_names(package, kept)
    columns = (*package.contract.columns, *kept)
    wanted = {names[column.name]: column.type for column in columns if column.name in names}
    wanted |= _predicted_types(package, is_explained)
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


def ranged_names(package: Package, kept: Sequence[ColumnRule] = ()) -> list[str]:
    """Return the columns of a score table whose ranges in its log let a reader pass over files.

    Those that follow the order of rows in their source, or may: the rows' place, dates and times, keys, `kept`. Values that
    lie anywhere in every file, as those of features and predictions do, rule out none, and take time for each row.
    """
    columns = [*package.contract.columns, *kept]
    names = written_names(package, kept)
    useful = {*package.contract.unique_key, *(rule.name for rule in kept)}
    ranged = [
        names[rule.name]
        for rule in columns
        if rule.name in names and family(rule.type) in (_HAVE_RANGES if rule.name in useful else ("date", "timestamp"))
    ]
    return [*ranged, "source_file", "row_number", "model_version"]


def scored(
    good: DataFrame,
    model: ModelVersion,
    *,
    score_id: str,
    source_version: str,
    kept: Sequence[ColumnRule] = (),
    allow_decoder: bool = False,
    explaining: Explaining | None = None,
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
        explaining: what the column of contributions rests on; None: there is none.
    """
    package = model.package
    contract, encoder = package.contract, package.encoder
    names = [column.name for column in package.scoring_contract.columns]
    written = written_names(package, kept)
    columns = [F.col(name).alias(written[name]) for name in names if name in written]
    columns += [_label(good, contract).alias(written[contract.label])] if contract.label else []
    columns += [F.col(rule.name).alias(written[rule.name]) for rule in kept]
    raw, encoded = encode_arrow.columns_from_spark(encoder)
    prepared, outputs = encode_spark.encoded(good, encode_arrow.left_to_spark(encoder))
    unwritten = {_input(name): F.col(name) for name in raw if name not in written}
    unwritten |= dict(zip(encoded, outputs, strict=True))
    for image in encoder.images:  # as pixels, whatever the feature table holds
        [output] = image.outputs
        unwritten[encode_arrow.encoded_name(output)] = F.expr(f"{looked_sql(image.column, image.name)}.pixels")
    inputs = prepared.select(
        *columns,
        split.row_id(contract.unique_key or names, binary=contract.binary),
        F.col(SOURCE_FILE).alias("source_file"),
        F.col(ROW_NUMBER).alias("row_number"),
        *(column.alias(name) for name, column in unwritten.items()),
    )
    read = [*(written.get(name, _input(name)) for name in raw), *encoded]
    types = {name: _spark_type(good, kind) for name, kind in _predicted_types(package, explaining is not None).items()}
    predict = _scorer(good.sparkSession, package, [*raw, *encoded], allow_decoder, explaining)
    scores = _with_predictions(inputs, len(inputs.columns) - len(unwritten), read, types, predict)
    return scores.select(
        *scores.columns,
        F.lit(model.name).alias("model_name"),
        F.lit(model.version).alias("model_version"),
        F.lit(source_version).alias("source_version"),
        F.lit(score_id).alias("score_id"),
    )


@contextmanager
def sending(spark: SparkSession) -> Iterator[None]:
    """Have Spark send up to 65,536 rows at once to Python while the context lasts, where it bounds their bytes, too.

    That is from Spark 4.1 on (`spark.sql.execution.arrow.maxBytesPerBatch`). A number of rows that the session was given
    counts.
    """
    rows = str(_ROWS_AT_ONCE) if hasattr(F, "arrow_udf") else _ROWS_OF_SPARK
    with session.having(spark, _ROWS_PER_BATCH, rows, instead_of=_ROWS_OF_SPARK):
        yield


@contextmanager
def predicting() -> Iterator[None]:
    """Turn what `Predictor` refuses on an executor into its ContractError. Wraps what runs the job."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if told := raised_by_worker(ContractError, str(error)):
            raise ContractError(f"{told}; no score was written") from error
        raise


@contextmanager
def worker_ahead(spark: SparkSession, package: Package, *, allow_decoder: bool) -> Iterator[None]:
    """Start a Python worker that has the version loaded, beside what Spark plans and reads while the context lasts.

    It takes seconds, most of them torch's import; the first task that scores finds it, see `python_workers`.
    """
    if not python_workers.are_here(spark):
        yield
        return
    files = spark.sparkContext.broadcast(dict(package.files))
    load = partial(partitions.ahead, files, package.digest, allow_decoder, session.task_cores(spark))
    waiting = python_workers.make_ready(spark, load)
    try:
        yield
    finally:
        waiting.join()


def _label(good: DataFrame, contract: Contract) -> Column:
    """Return the label in its type, null where the source has none or its text is no such value."""
    label = contract.label
    kind = contract.column(label).type if label else ""
    value = f"try_cast(`{label}` AS {kind})" if label in good.columns else f"CAST(NULL AS {kind})"
    return F.expr(value)


def _with_predictions(
    inputs: DataFrame, num_kept: int, read: Sequence[str], types: Mapping[str, DataType], predict: Scorer
) -> DataFrame:
    """Return rows with their predictions, from the columns `read`, in place of those after the first `num_kept`. Lazy."""
    struct = StructType([StructField(name, of, nullable=False) for name, of in types.items()])
    if hasattr(F, "arrow_udf"):
        # Only what the model reads goes to Python, and only predictions come back: the other columns stay with Spark.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it prefers hints, which cannot say "one or more columns"
            udf = F.arrow_udf(predict, struct, F.ArrowUDFType.SCALAR_ITER)  # type: ignore[attr-defined]
        scored = inputs.withColumn(_PREDICTED, udf(*(F.col(name) for name in read)))
        return scored.select(*inputs.columns[:num_kept], *(F.col(_PREDICTED)[name].alias(name) for name in types))
    whole = StructType([*inputs.schema.fields[:num_kept], *struct.fields])
    return inputs.mapInArrow(partial(partitions.whole_rows, predict, num_kept, read), schema=whole)  # before Spark 4.1


def _predicted_types(package: Package, is_explained: bool) -> dict[str, str]:
    """Return the columns that come back from Python -> their Spark types."""
    return package.task.prediction_types | ({contributions.COLUMN: contributions.TYPE} if is_explained else {})


def _scorer(
    spark: SparkSession, package: Package, columns: Sequence[str], allow_decoder: bool, explaining: Explaining | None
) -> Scorer:
    """Return what predicts the rows of a partition, on an executor."""
    broadcast = spark.sparkContext.broadcast
    return partitions.scorer(
        broadcast(dict(package.files)),
        package.digest,
        columns,
        allow_decoder=allow_decoder,
        threads=session.task_cores(spark),
        explaining=None if explaining is None else broadcast(explaining),
    )


def _input(name: str) -> str:
    """Return the column of a raw one that a model reads and the score table does not hold."""
    return f"{own_columns.PREFIX}input_{name}"


def _spark_type(rows: DataFrame, kind: str) -> Any:
    return rows.sparkSession.createDataFrame([], f"value {kind}").schema[0].dataType
