"""Training without a pipeline's YAML: a model and a loss of one's own, from a script or a notebook. Driver."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.config import ModelSettings, StreamingSettings, TrainingSettings
from mlspark.errors import ConfigError
from mlspark.features.layout import Layout
from mlspark.streaming import snapshot as snapshots
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import launcher, watching
from mlspark.training.launcher import OnEvent, TrainingOutcome
from mlspark.training.spec import TrainingSpec

S = TypeVar("S", TrainingSettings, StreamingSettings)


def launch_own(
    model: Callable[[Layout], Any] | str,
    table: str | Snapshot,
    *,
    dense: Sequence[str],
    categorical: Mapping[str, int] | None = None,
    label: str = "label",
    row_id: str = "row_id",
    loss: Callable[..., Any] | str = "",
    training: Mapping[str, Any] | None = None,
    streaming: Mapping[str, Any] | None = None,
    version: int | None = None,
    folder: str = "",
    spark: SparkSession | None = None,
    on_event: OnEvent = watching.tell,
) -> TrainingOutcome:
    """Train a model of one's own on all ranks, and return what came of it; `mlspark.training.launch` is this function.

    The weights of the best epoch are `checkpoint.load(outcome.checkpoint_uri).weights`. Given the folder of a run that was
    not ended, with the same arguments, it goes on there.

    Args:
        model: function of the Layout that returns the torch module, or package.module:function. The module takes dense
            (B, F) float32 and categorical (B, K) int64 and gives logits (B,). A function is sent to the ranks with what it
            refers to, so it may be one of a notebook.
        table: a Delta table, or a Snapshot of one, partitioned by `split` (train, validation, test), as prepare writes it.
        dense: float columns, in the order in which they stand in a batch.
        categorical: integer columns -> their number of ids.
        label: column of 0.0 and 1.0.
        row_id: column of int64 by which it is checked that every row was seen once.
        loss: of logits (B,) and labels (B,) -> loss of each row (B,); cross-entropy unless given.
        training: keys of TrainingSettings, like {"epochs": 5, "num_processes": 2}.
        streaming: keys of StreamingSettings.
        version: of the table; the newest unless given.
        folder: of the run, reachable from all nodes; a new one below .mlspark/runs unless given.
        spark: the session; the active one unless given.
        on_event: see `launcher.launch`; logs lines unless given.

    Raises:
        ConfigError: a wrong setting, no session, or what `launcher.launch` finds.
        TableError: no such table or version.
        TrainingFailed: see `launcher.launch`.
    """
    spark = spark or SparkSession.getActiveSession()
    if spark is None:
        raise ConfigError("no Spark session is active; make one with mlspark.session.start or SparkSession.builder")
    snapshot = table if isinstance(table, Snapshot) else snapshots.take(storage.absolute(table), version=version)
    columns = dict(categorical or {})
    spec = TrainingSpec(
        run_uri=storage.absolute(folder or storage.join(".mlspark", "runs", uuid.uuid4().hex)),
        layout=Layout(tuple(dense), tuple(columns), tuple(columns.values()), label, row_id),
        model=ModelSettings(kind="custom", factory=_name(model)),
        training=_validated(TrainingSettings, training, "training"),
        streaming=_validated(StreamingSettings, streaming, "streaming"),
    )
    if loss:
        spec = TrainingSpec(**{**vars(spec), "training": spec.training.model_copy(update={"loss": _name(loss)})})
    if storage.exists(spec.snapshot_uri):
        begun = Snapshot.load(spec.snapshot_uri)
        if begun.fingerprint != snapshot.fingerprint:
            raise ConfigError(f"{spec.run_uri}: a run on version {begun.version} of {begun.table}; give another folder")
    else:
        snapshot.save(spec.snapshot_uri)
    functions = (None if isinstance(model, str) else model, None if isinstance(loss, str) else loss)
    return launcher.launch(spark, spec, on_event, functions=functions if any(functions) else None)


def _name(function: Callable[..., Any] | str) -> str:
    if isinstance(function, str):
        return function
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"


def _validated(kind: type[S], given: Mapping[str, Any] | None, name: str) -> S:
    try:
        return kind.model_validate(dict(given or {}), strict=False)
    except ValidationError as error:
        problems = (f"{name}.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ConfigError("; ".join(problems)) from None
