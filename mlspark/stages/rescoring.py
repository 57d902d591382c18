"""The rows of a split, as the sources hold them now, scored by several versions. Driver, but for `_scoring` on executors.

Raw rows stay with Spark's workers: what comes to the driver is each row's id, label, weight, sliced values and outputs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.core.broadcast import Broadcast
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, StructField, StructType

from mlspark.errors import ContractError, FeatureError, raised_by_worker
from mlspark.evaluation import latency
from mlspark.evaluation.paired_rows import ComparisonError
from mlspark.evaluation.predictions import Predictions
from mlspark.intake import pictures
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor
from mlspark.session import computed_in_utc, task_cores
from mlspark.settings.pipeline import Settings
from mlspark.stages import raw_rows
from mlspark.tasks.task import Task

_TABLE_ROWS, _PICTURE_ROWS = 4096, 256
"""Raw rows that a worker encodes and scores at a time, without pictures and with them. Spark hands it 64 MiB at most."""

Packages = Mapping[str, Package]
"""Versions by their labels."""


@dataclass(frozen=True)
class Rescored:
    """Rows that were scored by each of several versions."""

    rows: pa.Table
    """`raw_rows.OWN` and the sliced columns."""
    outputs: Mapping[str, NDArray[Any]]
    """Label of a version -> its outputs (n, O)."""
    examples: Mapping[str, Mapping[str, NDArray[Any]]]
    """Label of a version -> some rows as it reads them, latency.BATCH_ROWS or fewer."""

    def where(self, is_kept: NDArray[np.bool_]) -> "Rescored":
        """Return these rows alone; the examples stay."""
        outputs = {label: values[is_kept] for label, values in self.outputs.items()}
        return Rescored(self.rows.filter(pa.array(is_kept)), outputs, self.examples)

    def predictions(self, label: str) -> Predictions:
        """Return what a version predicts of the rows."""
        row_id, target, weight = raw_rows.OWN
        weights = self.rows[weight].to_numpy() if weight in self.rows.column_names else None
        return Predictions.of(self.rows[row_id].to_numpy(), self.rows[target].to_numpy(), self.outputs[label], weights)


@computed_in_utc
def rescore(
    spark: SparkSession, settings: Settings, name: str, packages: Packages, columns: Sequence[str], task: Task
) -> Rescored:
    """Return the good rows of a split with the outputs of each version, by its own contract and encoder.

    Args:
        spark: the session.
        settings: sources, contract, split and joins of the pipeline.
        name: of the split.
        packages: of at least one version.
        columns: sliced ones, of the contract or of joins.
        task: resolved; says what label and weight are.

    Raises:
        ComparisonError: there are no such rows, or a version cannot score them.
        ConfigError: a column is not there.
        SourceError: a source is absent or cannot be read.
    """
    needed = [name for package in packages.values() for name in package.input_contract.names]
    # For the verdict on pictures alone: each version decodes them itself, where it scores.
    features = {
        (feature.column, feature.name): replace(feature, keeps_pixels=False)
        for package in packages.values()
        for feature in pictures.fitted(package.encoder)
    }
    with raw_rows.opened(
        spark, settings, name, list(dict.fromkeys([*needed, *columns])), task, tuple(features.values())
    ) as rows:
        some = rows.limit(latency.BATCH_ROWS).toArrow()
        if not some.num_rows:
            raise ComparisonError(f"the sources of {settings.name} have no {name} rows; give --split another one")
        examples, types = {}, list[DataType]()
        for label, package in packages.items():
            with _told(label):
                predictor, inputs = Predictor(package), some.select(list(package.input_contract.names))
                examples[label] = predictor.encoded(inputs)
                outputs = predictor.outputs(inputs)
            types.append(FloatType() if outputs.dtype == np.float32 else DoubleType())
        scored = _scored(rows, packages, columns, types)
    kept = [each for each in scored.column_names if not each.startswith(_OUTPUTS)]
    outputs_of = {
        label: scored[f"{_OUTPUTS}{place}"]
        .combine_chunks()
        .flatten()
        .to_numpy(zero_copy_only=False)
        .reshape(len(scored), -1)
        for place, label in enumerate(packages)
    }
    return Rescored(scored.select(kept), outputs_of, examples)


_OUTPUTS = "_mlspark_outputs_"


def _scored(rows: DataFrame, packages: Packages, columns: Sequence[str], types: Sequence[DataType]) -> pa.Table:
    """Return `raw_rows.OWN`, `columns` and a column of outputs for each version, on the driver."""
    spark = rows.sparkSession
    kept = [name for name in (*raw_rows.OWN, *columns) if name in rows.columns]
    fields = [rows.schema[name] for name in dict.fromkeys(kept)]
    fields += [StructField(f"{_OUTPUTS}{place}", ArrayType(kind, False), False) for place, kind in enumerate(types)]
    files = spark.sparkContext.broadcast({label: dict(package.files) for label, package in packages.items()})
    score = _scoring(files, [field.name for field in fields[: -len(types)]], task_cores(spark))
    # As many tasks as run at a time: each loads the versions once.
    tasks = rows.coalesce(spark.sparkContext.defaultParallelism)
    try:
        return tasks.mapInArrow(score, StructType(fields)).toArrow()
    except (PySparkException, Py4JJavaError) as error:
        if told := raised_by_worker(ComparisonError, str(error)):
            raise ComparisonError(told) from error
        raise
    finally:
        files.destroy()


def _scoring(
    files: Broadcast[dict[str, dict[str, bytes]]], kept: Sequence[str], threads: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what scores the rows of a task with each version, piece by piece; runs on executors."""

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictors, at_once = dict[str, Predictor](), _TABLE_ROWS
        for batch in batches:
            if not predictors:  # a task without rows loads nothing
                packages = {label: Package(of_version) for label, of_version in files.value.items()}
                predictors = {label: Predictor(package, threads=threads) for label, package in packages.items()}
                has_pictures = any(package.encoder.images for package in packages.values())
                at_once = _PICTURE_ROWS if has_pictures else _TABLE_ROWS
            for start in range(0, len(batch), at_once):
                piece = pa.Table.from_batches([batch.slice(start, at_once)])
                arrays = [piece[name].combine_chunks() for name in kept]
                for label, predictor in predictors.items():
                    with _told(label):
                        outputs = predictor.outputs(piece.select(list(predictor.contract.names)))
                    ends = np.arange(len(outputs) + 1, dtype=np.int32) * outputs.shape[1]
                    arrays.append(pa.ListArray.from_arrays(ends, np.ascontiguousarray(outputs).reshape(-1)))
                yield pa.RecordBatch.from_arrays(
                    arrays, [*kept, *(f"{_OUTPUTS}{place}" for place in range(len(predictors)))]
                )

    return score


@contextmanager
def _told(label: str) -> Iterator[None]:
    """Say which version it is that cannot score the rows."""
    try:
        yield
    except (ContractError, FeatureError) as error:
        raise ComparisonError(f"{label} cannot score the rows of the sources: {error}") from error
