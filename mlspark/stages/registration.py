"""A trained model becomes a version: packed with what it comes from, and registered with its run. Driver."""

from pathlib import Path

from mlspark.features.prepared import Prepared
from mlspark.registry import provenance, versions
from mlspark.registry.package import Package
from mlspark.settings.pipeline import Settings
from mlspark.stages import costs, training_record
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.task import Task
from mlspark.tracking.runs import Client, Run
from mlspark.training.learned_model import LearnedModel


def pipeline_folder(settings: Settings) -> Path:
    """Return the folder of the pipeline's own files: its contract is one of them."""
    return Path(settings.contract).absolute().parent


def register(
    client: Client,
    settings: Settings,
    prepared: Prepared,
    task: Task,
    learned: LearnedModel,
    run: Run,
    snapshot: Snapshot,
    seconds: float,
) -> int:
    """Register what was learned as a version of the run, which gets its files and metrics; return the version's number.

    `seconds` is what the training took so far, all its drivers together: the cost that the version has.

    Raises:
        RegistryError: the run registered another model.
        TrackingError: MLflow does not answer.
    """
    for name, content in learned.artifacts.items():
        run.log_file(content, name)
    chosen = settings.model.chosen(prepared.encoder.tensors(task))
    package = Package.pack(
        model=learned.files,
        encoder=prepared.encoder.only([spec.name for spec in chosen.specs]),
        contract=prepared.contract,
        task=task,
        provenance=provenance.describe(
            run_id=run.run_id,
            table=prepared.table,
            table_version=prepared.version,
            metrics=learned.metrics,
            train_seconds=learned.train_seconds,
            pipeline=pipeline_folder(settings),
            table_digest=snapshot.fingerprint,
            prepare_id=prepared.metadata["id"],
            encoder=prepared.encoder.fingerprint,
            sources=training_record.sources(prepared),
            settings=settings.model_dump(mode="json"),
            cost=costs.of(settings, seconds),
            **learned.report,
        ),
    )
    run.flush()
    return versions.register(
        client,
        package,
        run_id=run.run_id,
        name=settings.registry.model_name,
        alias=settings.registry.alias,
        example=training_record.example(package, prepared),
        retry_seconds=settings.tracking.retry_seconds,
    )
