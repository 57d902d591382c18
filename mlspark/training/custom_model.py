"""Training without a pipeline's YAML: a model and a loss of one's own, from a script or a notebook. Driver."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.engines import source_code
from mlspark.errors import ConfigError, RegistryError, TableError
from mlspark.features import prepared
from mlspark.features.kinds.image import OTHER_TENSORS, other_decoder
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.custom import CustomSettings
from mlspark.pictures import decoder
from mlspark.streaming import delta_files
from mlspark.streaming.pictures import Picture, picture_fields
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks import kinds as tasks
from mlspark.tasks.task import Task
from mlspark.training import launcher, progress_display
from mlspark.training.events import OnEvent
from mlspark.training.outcome import TrainingOutcome
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import Functions, TrainingSpec

S = TypeVar("S", TrainingSettings, StreamingSettings)

_TARGET_DTYPES = {"float": "float32", "int": "int64", "double": "float64"}


def launch(
    model: Callable[[Tensors, int], Any] | str,
    table: str | Snapshot,
    *,
    dense: Sequence[str] = (),
    ids: Mapping[str, int] | None = None,
    images: Mapping[str, Picture] | Sequence[str] = (),
    label: str = "label",
    row_id: str = "row_id",
    weight: str | None = None,
    task: Mapping[str, Any] | Task | None = None,
    loss: Callable[..., Any] | str = "",
    training: Mapping[str, Any] | None = None,
    streaming: Mapping[str, Any] | None = None,
    version: int | None = None,
    folder: str = "",
    spark: SparkSession | None = None,
    on_event: OnEvent = progress_display.show,
) -> TrainingOutcome:
    """Train a model of one's own on all ranks, and return what came of it; `mlspark.training.launch` is this function.

    The best weights are `checkpoint.load(outcome.checkpoint_uri).weights`. A run in `folder` that has not ended goes on.

    Args:
        model: function of (Tensors, number of outputs) that returns the torch module, or package.module:function. The
            forward takes dense (B, F) float32, ids (B, K) int64 and pictures (B, C, H, W) uint8 by name, where there are
            such, and returns (B, outputs).
            A function is sent to the ranks with what it refers to, so it may be one of a notebook.
        table: a Delta table, or a Snapshot of one, partitioned by `split` (train, validation, test), as prepare writes it.
        dense: float columns, in the order in which they stand in a batch.
        ids: integer columns -> their number of ids.
        images: name -> `Picture` of a binary column, as for `mlspark.streaming.open`; its `augment` is for training rows.
            Of a table that prepare wrote, names of its features of pictures: they come with the table's statistics, and are
            changed at random as training={"augment": {name: [...]}} says.
        label: column of the target: 0.0 and 1.0 (binary), class ids from 0 (multiclass) or numbers (regression).
        row_id: column of int64 by which it is checked that every row was seen once.
        weight: column of sample weights; all rows weigh the same unless given.
        task: like {"kind": "multiclass", "classes": ["a", "b", "c"]}; binary unless given.
        loss: of outputs, (B,) or (B, O), and target (B,) -> loss of each row (B,); the task's unless given.
        training, streaming: keys of TrainingSettings, like {"epochs": 5, "num_processes": 2}, and StreamingSettings.
        version: of the table; the newest unless given.
        folder: of the run, reachable from all nodes; a new one below .mlspark/runs unless given.
        spark, on_event: as for `launcher.launch`; the active session, and lines in the log, unless given.

    Raises:
        ConfigError: a wrong setting, no session, or what `launcher.launch` finds.
        TableError: no such table or version.
        TrainingFailed: see `launcher.launch`.
    """
    spark = spark or _session()
    snapshot = table if isinstance(table, Snapshot) else delta_files.take(storage.absolute(table), version=version)
    of_task, pictures = _task(task, label, weight, loss), _pictures(images, snapshot)
    spec = TrainingSpec(
        run_uri=_run_uri(folder),
        tensors=_tensors(of_task, dense, ids or {}, pictures, label, row_id, weight),
        task=of_task,
        model=CustomSettings(factory=_name(model)),
        training=_validated(TrainingSettings, _with_augment(training or {}, images), "training"),
        streaming=_validated(StreamingSettings, streaming, "streaming"),
    )
    _pin(spec, snapshot)
    _keep_source(spec, model)
    functions = Functions(None if isinstance(model, str) else model, None if isinstance(loss, str) else loss)
    return launcher.launch(spark, spec, on_event, functions=functions)


def _session() -> SparkSession:
    try:
        # Not the active one alone: another thread has none, nor has any thread after an interruption.
        return SparkSession.active()
    except PySparkRuntimeError:
        raise ConfigError(
            "no Spark session is active; make one with mlspark.session.start or SparkSession.builder"
        ) from None


def _run_uri(folder: str) -> str:
    return storage.absolute(folder or storage.join(".mlspark", "runs", uuid.uuid4().hex))


def _task(
    task: Mapping[str, Any] | Task | None, label: str, weight: str | None, loss: Callable[..., Any] | str
) -> Task:
    """Return the resolved task."""
    if isinstance(task, Task):
        settings = task.model_dump()
    else:
        settings = {"kind": "binary", **(task or {})}
        settings = {"target": label, "weight": weight, **settings}
        if settings["kind"] == "binary":
            settings.setdefault("classes", (0, 1))
    if loss:
        settings = {**settings, "loss": {"kind": "custom", "function": _name(loss)}}
    of_task = tasks.from_settings(dict(settings))
    if not of_task.is_resolved:
        raise ConfigError(f"task={settings}: the classes are not named; give task={{..., 'classes': [...]}}")
    return of_task


def _tensors(
    task: Task,
    dense: Sequence[str],
    ids: Mapping[str, int],
    pictures: Sequence[TensorSpec],
    label: str,
    row_id: str,
    weight: str | None,
) -> Tensors:
    specs = (
        TensorSpec("dense", tuple(dense), "float32"),
        TensorSpec("ids", tuple(ids), "int64", tuple(ids.values())),
        *pictures,
    )
    if not dense and not ids and not pictures:
        raise ConfigError("no columns: give dense=[...], ids={column: number of ids} or images={name: Picture(...)}")
    return Tensors(
        specs=tuple(spec for spec in specs if spec.columns),
        target=label,
        target_dtype=_TARGET_DTYPES[task.label_type],  # type: ignore[arg-type]
        row_id=row_id,
        weight=weight,
    )


def _pictures(images: Mapping[str, Picture] | Sequence[str], snapshot: Snapshot) -> tuple[TensorSpec, ...]:
    """Return the tensors of pictures that are asked for."""
    if taken := sorted({*images} & {*OTHER_TENSORS}):
        raise ConfigError(f"images: batches have another tensor called {taken[0]}; choose another name")
    if isinstance(images, Mapping):
        fields = picture_fields(images, snapshot.columns, snapshot.table)
        specs = ((field, replace(images[field.name].spec, decoder=decoder.version())) for field in fields)
        return tuple(TensorSpec(field.name, (field.columns[0].name,), "uint8", picture=spec) for field, spec in specs)
    return _prepared_pictures(images, snapshot) if images else ()


def _prepared_pictures(names: Sequence[str], snapshot: Snapshot) -> tuple[TensorSpec, ...]:
    """Return the tensors of a feature table's pictures."""
    try:
        encoder = prepared.at(snapshot.table, snapshot.version).encoder
    except TableError as error:
        raise ConfigError(
            f"images={list(names)}: names are of features of a table that prepare wrote, and {error}; give "
            f"images={{name: Picture(...)}}"
        ) from None
    known = {image.name: image for image in encoder.images}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"images: {unknown[0]} is no feature of pictures of {snapshot.table}; there are "
            f"{', '.join(known) if known else 'none'}"
        )
    if problem := other_decoder([known[name] for name in names if known[name].spec.store == "encoded"]):
        raise ConfigError(f"{snapshot.table}: {problem}; install those, or prepare the table anew")
    return tuple(spec for spec in encoder.specs if spec.name in names)


def _with_augment(training: Mapping[str, Any], images: Mapping[str, Picture] | Sequence[str]) -> Mapping[str, Any]:
    """Return the settings of training with what is done to pictures at random, of which each may say it itself."""
    own = (
        {name: tuple(images[name].augment) for name in images if images[name].augment}
        if isinstance(images, Mapping)
        else {}
    )
    said = training.get("augment", {})
    if twice := sorted({*own} & {*said}):
        raise ConfigError(f"training.augment.{twice[0]}: images says it, too; leave one of them out")
    return {**training, "augment": {**said, **own}} if own else training


def _pin(spec: TrainingSpec, snapshot: Snapshot) -> None:
    """Keep the snapshot with the run, or check that the run there is on the same one."""
    if storage.exists(spec.snapshot_uri):
        begun = Snapshot.load(spec.snapshot_uri)
        if begun.fingerprint != snapshot.fingerprint:
            raise ConfigError(f"{spec.run_uri}: a run on version {begun.version} of {begun.table}; give another folder")
    else:
        snapshot.save(spec.snapshot_uri)


def _keep_source(spec: TrainingSpec, model: Callable[..., Any] | str) -> None:
    """Keep the model's source with the run, from which `mlspark.registry.register` makes versions, or why it has none."""
    if storage.exists(spec.code_uri):
        return
    try:
        storage.write_sealed(spec.code_uri, source_code.capture(model).saved())
    except RegistryError as error:
        storage.write_sealed(spec.code_uri, {"refusal": str(error)})


def _name(function: Callable[..., Any] | str) -> str:
    if isinstance(function, str):
        return function
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"


def _validated(kind: type[S], values: Mapping[str, Any] | None, name: str) -> S:
    try:
        return kind.model_validate(dict(values or {}), strict=False)
    except ValidationError as error:
        problems = (f"{name}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise ConfigError("; ".join(problems)) from None
