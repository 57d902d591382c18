"""A model trained from a notebook or script becomes a registered version. Driver."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlspark import credentials, storage
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.engines import eager
from mlspark.engines.source_code import SourceCode
from mlspark.errors import RegistryError, TableError
from mlspark.features import prepared as preparations
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.as_is import AsIs
from mlspark.features.kinds.image import Image
from mlspark.features.tensors import TensorSpec
from mlspark.pictures.media import Media
from mlspark.pictures.spec import PictureSpec
from mlspark.registry import provenance, versions
from mlspark.registry.package import Package
from mlspark.registry.settings import check_names
from mlspark.registry.versions import ModelVersion
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.task import Task
from mlspark.tracking import runs
from mlspark.tracking.runs import Dataset
from mlspark.tracking.settings import TrackingSettings
from mlspark.training import checkpoint, progress_display
from mlspark.training.outcome import TrainingOutcome
from mlspark.training.spec import TrainingSpec

_RUN_TAG = "mlspark.run_uri"


def register(
    outcome: TrainingOutcome, *, name: str, alias: str = "", tracking_uri: str = "", root: str = ".mlspark"
) -> ModelVersion:
    """Register the best weights of a run that `mlspark.training.launch` trained, and return the version.

    `mlspark.registry.register` is this function. The same run registers once, whenever it is called again.

    Where the model takes the encoder's tensors of a table that `prepare` wrote, the version scores raw rows, with the
    table's encoder and contract. Else it scores rows that have the columns the model was trained on, as they are.

    Args:
        outcome: of the run.
        name: of the registered model, and of the MLflow experiment of the run.
        alias: moved to the version; "" moves none.
        tracking_uri: MLflow server; "": $MLFLOW_TRACKING_URI, else the embedded store below `root`.
        root: folder of the embedded store.

    Raises:
        RegistryError: the model's source could not be copied when the run began, or the run registered another model, or
            `name` or `alias` is none.
        ConfigError: no place for the embedded store.
    """
    check_names(name, alias)
    credentials.refuse({"tracking_uri": tracking_uri, "root": root})
    spec = _spec(outcome)
    snapshot = Snapshot.load(spec.snapshot_uri)
    encoder, contract, task = _inputs(spec, snapshot, name)
    files = eager.pack(
        spec.model,
        spec.tensors,
        task.num_outputs,
        checkpoint.load(outcome.checkpoint_uri).weights,
        _source_code(spec),
    )
    client = runs.connect(TrackingSettings(uri=tracking_uri, experiment=name), storage.absolute(root))
    run_id = _run(client, outcome, spec, snapshot, name)
    package = Package.pack(
        model=files,
        encoder=encoder,
        contract=contract,
        task=task,
        provenance=provenance.describe(
            run_id=run_id,
            table=snapshot.table,
            table_version=snapshot.version,
            metrics=outcome.metrics,
            train_seconds=outcome.train_seconds,
            table_digest=snapshot.fingerprint,
            world_size=outcome.world_size,
            steps=outcome.steps,
        ),
    )
    version = versions.register(client, package, run_id=run_id, name=name, alias=alias)
    return versions.find(client, name, version)


def _spec(outcome: TrainingOutcome) -> TrainingSpec:
    """Return the run as its last start had it."""
    newest = storage.list_folders(storage.join(outcome.run_uri, "attempts"))[-1]
    return TrainingSpec.load(storage.join(newest, "spec.json"))


def _inputs(spec: TrainingSpec, snapshot: Snapshot, name: str) -> tuple[Encoder, Contract, Task]:
    """Return encoder, contract and task: those of the table, else those of columns that are taken as they are."""
    try:
        prepared = preparations.of_commit(snapshot.table, preparations.commit_at(snapshot.table, snapshot.version))
    except TableError:
        return _as_is(spec, snapshot, name)
    if prepared.encoder.specs != spec.tensors.specs or prepared.task.label_type != spec.task.label_type:
        return _as_is(spec, snapshot, name)
    return prepared.encoder, prepared.contract, _named(spec.task, prepared.task)


def _named(task: Task, of_table: Task) -> Task:
    """Return the run's task with the table's names of target and classes, which its labels stand for."""
    names = of_table.model_dump(include={"target", "classes", "aliases", "event"})
    return type(task).model_validate(task.model_dump() | names)


def _as_is(spec: TrainingSpec, snapshot: Snapshot, name: str) -> tuple[Encoder, Contract, Task]:
    rules: list[ColumnRule] = []
    features: list[AsIs | Image] = []
    for tensor in spec.tensors.specs:
        if tensor.picture is not None:
            features.append(_image(tensor, tensor.picture, snapshot))
            rules.append(ColumnRule(name=tensor.columns[0], type="binary", nullable=False, media=Media()))
            continue
        for place, column in enumerate(tensor.columns):
            ids = tensor.cardinalities[place] if tensor.cardinalities else 0
            limits: Mapping[str, Any] = {"min": 0, "max": ids - 1} if ids else {}
            rules.append(ColumnRule(name=column, type="int" if ids else "float", nullable=False, **limits))
            features.append(AsIs(name=column, column=column, ids=ids))
    encoder = Encoder(
        pipeline=name,
        rows=snapshot.where(split="train").num_rows,
        inputs={rule.name: rule.type for rule in rules},
        features=tuple(features),
    )
    return encoder, Contract(name=name, columns=tuple(rules)), spec.task


def _image(tensor: TensorSpec, spec: PictureSpec, snapshot: Snapshot) -> Image:
    """Return the feature of a column of files of pictures."""
    if spec.store == "pixels":
        raise RegistryError(
            f"{snapshot.table}: column {tensor.columns[0]} holds pixels, and how they were made of pictures is not known; "
            f"prepare the table from pictures with mlspark, and name its feature in images=[...]"
        )
    return Image(name=tensor.name, column=tensor.columns[0], spec=spec, file_bytes=0.0)


def _source_code(spec: TrainingSpec) -> SourceCode:
    """Return the model's source as it was when the run began."""
    if not storage.exists(spec.code_uri):
        raise RegistryError(f"{spec.code_uri}: missing, so that the model's source is not known; train the model anew")
    saved = storage.read_sealed(spec.code_uri)
    if "refusal" in saved:
        raise RegistryError(
            f"{spec.run_uri}: no version can be made of this run: {saved['refusal']}; then train it anew"
        )
    return SourceCode.of_saved(saved)


def _run(client: Any, outcome: TrainingOutcome, spec: TrainingSpec, snapshot: Snapshot, name: str) -> str:
    """Return the id of the MLflow run that stands for a run's folder, a new one with its figures where there is none."""
    settings = TrackingSettings(experiment=name)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, "connect has made it"
    tagged = client.search_runs([experiment.experiment_id], f"tags.`{_RUN_TAG}` = '{spec.run_uri}'")
    ended = [run for run in tagged if run.info.status == "FINISHED"]
    if ended:
        return str(ended[0].info.run_id)
    of_pipeline = provenance.revision(Path.cwd())
    tags = {_RUN_TAG: spec.run_uri, "mlflow.source.git.commit": of_pipeline.commit}
    with runs.open_run(
        client, settings, f"{name} v{snapshot.version}", tags={k: v for k, v in tags.items() if v}
    ) as run:
        run.log_params(
            {
                "model": spec.model.model_dump(mode="json"),
                "training": spec.training.model_dump(mode="json"),
                "streaming": spec.streaming.model_dump(mode="json"),
                "task": json.loads(spec.task.to_json()),
            }
        )
        source = {"path": snapshot.table, "delta_table_version": snapshot.version}
        profile = {"num_rows": outcome.rows_per_epoch}
        run.log_datasets([Dataset(name, snapshot.fingerprint, "training", "delta_table", source, profile)])
        for epoch in outcome.epochs:
            run.log_metrics(progress_display.numbers(epoch), step=epoch.epoch)
    return run.run_id
