"""Raw rows become predictions in a table, every row accounted for. Driver, but for what runs in `_scorer`."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.core.broadcast import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructType

from mlspark import storage, tables, tracking
from mlspark.config import Settings
from mlspark.contracts import spark as conforming
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ConfigError
from mlspark.features import spark as features
from mlspark.features import split
from mlspark.preparation import joining
from mlspark.preparation.joining import Join
from mlspark.registry import versions
from mlspark.registry.bundle import Bundle, Predictor
from mlspark.registry.versions import ModelVersion
from mlspark.sources import catalog
from mlspark.sources.source import Source, reading

logger = logging.getLogger(__name__)


def score(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Write predictions for `scoring.source` with `scoring.model` and return the report.

    Does nothing when these rows were already scored with this model version.

    Raises:
        ConfigError: scoring.source is not set.
        RegistryError: no such model, version or alias.
        SourceError: the source is absent or empty.
        ContractError: the data as a whole does not meet the model's contract; nothing was written.
    """
    started = time.monotonic()
    if settings.scoring.source is None:
        raise ConfigError("scoring.source: missing; give scoring.source.path the raw rows to score")
    model = versions.find(tracking.connect(settings), settings.registry.model_name, settings.scoring.model)
    source = catalog.find(spark, settings.scoring.source, root=settings.sources.root)
    joins = _joins(spark, model, settings)
    score_id = _score_id(source, joins, model, settings)
    table = settings.table("scores")

    done = tables.find_commit(table, score_id)
    if done is not None:
        logger.info("scores: already done, version %d of %s", done.version, table)
        return _report(done.metadata, table, done.version, already_done=True, seconds=time.monotonic() - started)

    contract = model.bundle.contract
    rows = catalog.read(spark, source, _with_label(contract, settings) if source.settings.has_label else contract)
    if (columns := catalog.columns(spark, source)) is not None:
        conforming.drift(columns, contract, has_types=catalog.has_types(source))
    conformed = conforming.conform(rows, contract).withColumn("source", F.lit("score"))
    with ExitStack() as stack:
        conformed = conforming.without_raw(conformed).persist(StorageLevel.MEMORY_AND_DISK)
        stack.callback(conformed.unpersist)
        with reading(source.uri):
            account = conforming.account(conformed, contract, sources=["score"])
        totals = account.totals
        logger.info("score: read %s rows, kept %s, rejected %s", *(f"{count:,}" for count in totals.values()))
        conforming.check_account(account, contract)
        joined = stack.enter_context(joining.read(spark, joins))
        good = joining.attach(conformed.where(~conforming.is_bad()), joined.good, joins)
        metadata = {
            "id": score_id,
            "source": source.identity,
            "joins": joined.to_json(joins),
            "model_name": model.name,
            "model_version": model.version,
            "reasons": account.reasons,
            **totals,
        }
        storage.write_bytes(tables.sidecar(table, score_id, "config.yaml"), settings.to_yaml().encode())
        tables.write_quarantine(
            joined.with_bad(conformed.where(conforming.is_bad())),
            settings.table("scores_quarantine"),
            score_id,
            totals["rows_quarantined"] + joined.num_bad,
        )
        scored = _scored(good, model, settings, score_id, source.identity["sha256"])
        written = tables.replace_part(scored, table, part="score_id", value=score_id, metadata=metadata)
    seconds = time.monotonic() - started
    logger.info("scores: wrote version %d of %s in %.1f s", written.version, table, seconds)
    return _report(metadata, table, written.version, already_done=False, seconds=seconds)


def _with_label(contract: Contract, settings: Settings) -> Contract:
    """Return the contract with the label as last column, for sources whose rows carry one; it is not looked at."""
    label = ColumnRule(name=settings.features.label.column, type="string")
    return contract.model_copy(update={"columns": (*contract.columns, label)})


def _joins(spark: SparkSession, model: ModelVersion, settings: Settings) -> tuple[Join, ...]:
    """Return the joins that give the model's features the columns that are not in its contract."""
    needed = set(model.bundle.encoder.inputs) - {column.name for column in model.bundle.contract.columns}
    if not needed:
        return ()
    found = joining.find(spark, settings)
    given = joining.types(spark, found, model.bundle.contract)
    if missing := sorted(needed - set(given)):
        raise ConfigError(
            f"joins: model {model.name} version {model.version} needs {', '.join(missing)}; give the joins that it was "
            f"trained with"
        )
    return found


def _score_id(source: Source, joins: Sequence[Join], model: ModelVersion, settings: Settings) -> str:
    """Return the hash of everything that decides the scores."""
    decides = {
        "source": source.identity,
        "joins": [join.identity for join in joins],
        "model": [model.name, model.version, model.bundle.provenance["run_id"]],
        "threshold": settings.scoring.threshold,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _scored(good: DataFrame, model: ModelVersion, settings: Settings, score_id: str, source_version: str) -> DataFrame:
    """Return the contract's columns with row_id, probability, prediction and where both come from."""
    encoder, names = model.bundle.encoder, [column.name for column in model.bundle.contract.columns]
    prepared, encoded = features.encoded(good, encoder)
    is_id = [bool(output.ids) for output in encoder.outputs]
    inputs = prepared.select(
        *names,
        split.row_id(names),
        F.array(*(column for column, of_id in zip(encoded, is_id, strict=True) if not of_id)).alias("_dense"),
        F.array(*(column for column, of_id in zip(encoded, is_id, strict=True) if of_id)).alias("_categorical"),
    )
    kept = StructType([field for field in inputs.schema if field.name not in ("_dense", "_categorical")])
    files = good.sparkSession.sparkContext.broadcast(dict(model.bundle.files))
    scores = inputs.mapInArrow(_scorer(files), schema=StructType([*kept, *_PROBABILITY]))
    return scores.select(
        *names,
        "row_id",
        "probability",
        (F.col("probability") >= settings.scoring.threshold).cast("int").alias("prediction"),
        F.lit(model.name).alias("model_name"),
        F.lit(model.version).alias("model_version"),
        F.lit(source_version).alias("source_version"),
        F.lit(score_id).alias("score_id"),
    )


_PROBABILITY = StructType().add("probability", DoubleType(), nullable=False)


def _scorer(
    files: Broadcast[dict[str, bytes]],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what scores the rows of a partition, on an executor."""

    def score_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictor = _predictor(files)
        layout = predictor.encoder.layout
        num_dense, num_categorical = len(layout.dense), len(layout.categorical)
        for batch in batches:
            dense = _matrix(batch.column("_dense"), num_dense).astype(np.float32)
            categorical = _matrix(batch.column("_categorical"), num_categorical).astype(np.int64)
            probability = pa.array(predictor.probabilities(dense, categorical))
            kept = batch.drop_columns(["_dense", "_categorical"])
            yield kept.append_column("probability", probability)

    return score_partition


def _predictor(files: Broadcast[dict[str, bytes]]) -> Predictor:
    """Return the predictor of a broadcast bundle, built once for each Python worker."""
    return _built(tuple(sorted(files.value.items())))


@lru_cache(maxsize=2)
def _built(files: tuple[tuple[str, bytes], ...]) -> Predictor:
    return Predictor(Bundle(dict(files)))


def _matrix(column: pa.Array, width: int) -> Any:
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)


def _report(
    metadata: Mapping[str, Any], table: str, version: int, *, already_done: bool, seconds: float
) -> dict[str, Any]:
    return {
        "rows_read": metadata["rows_read"],
        "rows_scored": metadata["rows_good"],
        "rows_quarantined": metadata["rows_quarantined"],
        "reasons": metadata["reasons"],
        "output": table,
        "output_version": version,
        "model_name": metadata["model_name"],
        "model_version": metadata["model_version"],
        "already_done": already_done,
        "seconds": round(seconds, 3),
    }
