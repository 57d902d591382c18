"""Rows of a partition become predictions, on an executor.

A Python worker imports this module, and what it imports: neither Spark's session, tables nor MLflow, which take seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from numpy.typing import NDArray

from mlspark.contracts.column_types import arrow_type
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor

if TYPE_CHECKING:
    from pyspark.core.broadcast import Broadcast

    from mlspark.scoring.contributions import Explaining
    from mlspark.scoring.explain import Explainer

Scorer = Callable[[Iterator[Any]], Iterator[pa.StructArray]]
"""Makes predictions of the columns that a model reads; runs on executors."""


def scorer(
    files: "Broadcast[dict[str, bytes]]",
    digest: str,
    columns: Sequence[str],
    *,
    allow_decoder: bool,
    threads: int,
    explaining: "Broadcast[Explaining] | None",
) -> Scorer:
    """Return what predicts the rows of a partition.

    Args:
        files: of the version's package.
        digest: of the package.
        columns: that come, of `encode_arrow.columns_from_spark`.
        allow_decoder: see `Predictor`.
        threads: see `Predictor`.
        explaining: what the column of contributions rests on; None: there is none.
    """

    def score_partition(batches: Iterator[Any]) -> Iterator[pa.StructArray]:
        explainer = None
        for batch in batches:  # a partition without rows has none, and loads no engine
            predictor = _predictor(files, digest, allow_decoder, threads)
            types = predictor.task.prediction_types
            if explaining is not None and explainer is None:
                explainer = _explainer(files, explaining.value, allow_decoder, threads)
            values = batch if isinstance(batch, tuple) else (batch,)  # one column comes alone
            encoded = predictor.encoded_from_spark(pa.table(list(values), list(columns)))
            predictions = predictor.predict_encoded(encoded)
            arrays = {name: _array(values, arrow_type(types[name])) for name, values in predictions.items()}
            if explaining is not None and explainer is not None:
                from mlspark.scoring import contributions

                arrays[contributions.COLUMN] = contributions.column(
                    explainer.explain_encoded(encoded), explaining.value.top
                )
            yield pa.StructArray.from_arrays(list(arrays.values()), list(arrays))

    return score_partition


def ahead(
    files: "Broadcast[dict[str, bytes]]",
    digest: str,
    allow_decoder: bool,
    threads: int,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Make ready in a Python worker what `scorer` needs; yield what comes."""
    _predictor(files, digest, allow_decoder, threads)
    yield from batches


def whole_rows(
    predict: Scorer, num_kept: int, read: Sequence[str], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield batches with predictions of the columns `read` in place of those after the first `num_kept`."""
    for batch in batches:
        [predictions] = predict(iter([tuple(batch.column(name) for name in read)]))
        names = [*batch.schema.names[:num_kept], *(field.name for field in predictions.type)]
        yield pa.RecordBatch.from_arrays([*batch.columns[:num_kept], *predictions.flatten()], names)


_made: dict[tuple[str, bool, int], Predictor] = {}
_MOST_MADE = 2
"""Predictors that a Python worker keeps, of the last versions that it scored with."""


def _predictor(files: "Broadcast[dict[str, bytes]]", digest: str, allow_decoder: bool, threads: int) -> Predictor:
    """Return the predictor of a broadcast package, made once for each Python worker; the broadcast is read then only."""
    key = digest, allow_decoder, threads
    if key not in _made:
        while len(_made) >= _MOST_MADE:
            del _made[next(iter(_made))]
        _made[key] = Predictor(Package(files.value), allow_decoder=allow_decoder, threads=threads)
    return _made[key]


def _explainer(
    files: "Broadcast[dict[str, bytes]]", explaining: "Explaining", allow_decoder: bool, threads: int
) -> "Explainer":
    from mlspark.scoring.explain import Explainer

    return Explainer(Package(files.value), explaining.reference, allow_decoder=allow_decoder, threads=threads)


def _array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return a column of predictions."""
    return pa.array(values.tolist() if values.ndim > 1 or values.dtype == object else values, kind)
