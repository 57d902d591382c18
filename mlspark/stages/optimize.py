"""The optimize stage: a version of a network becomes one that the fastest engine runs which loses little enough. Driver.

Of an ensemble all networks among its members are run by that engine; members of another kind stay as they are.

The new version has the same weights, encoder, contract and task, and beside them what its engine reads. It is evaluated as
any other: on its validation and test rows, whose predictions are kept with a run of its own.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mlspark import storage
from mlspark.engines import engine, engine_file, processor
from mlspark.errors import RegistryError
from mlspark.features.tensors import Tensors
from mlspark.models import from_json
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.registry.versions import ModelVersion
from mlspark.settings.pipeline import Settings
from mlspark.stages import version_rows
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tracking import runs
from mlspark.tracking.runs import Client, Run
from mlspark.training import engine_trials, held_out
from mlspark.training.engine_trials import EAGER, Choice, Trial
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_ID = "optimization_id"
"""Tag of a version: hash of what decides which engine is kept."""


def optimize(settings: Settings, name: str, wanted: int | str, choice: Choice, *, alias: str = "") -> dict[str, Any]:
    """Register a version's model run by the engine that is chosen as a new version, and return the report.

    Where no engine is faster than eager none is registered, unless one is named. The same version on the same processor,
    with the same libraries and choice, is optimised once.

    Args:
        settings: where versions, runs and tables are.
        name: of the registered model.
        wanted: number or alias of the version.
        choice: of the engine.
        alias: moved to the new version; "" moves none.

    Raises:
        ConfigError: no such engine.
        RegistryError: no such version, or it is none of a network; or its run or its validation rows are gone; or the engine
            that was named is refused: says why, with figures.
        TableError, DatasetError: its rows cannot be read any more.
        TrackingError: MLflow does not answer.
    """
    started = time.monotonic()
    choice.check()
    client, retry_seconds = runs.connect(settings.tracking, settings.root), settings.tracking.retry_seconds
    source = versions.find(client, name, wanted, retry_seconds=retry_seconds)
    _refuse_other(source)
    snapshot = version_rows.of_run(settings, source)[1]
    splits = {split: snapshot.where(split=split) for split in ("train", "validation", "test")}
    if not splits["validation"].num_rows:
        raise RegistryError(
            f"model {name} version {source.version}: there are no validation rows, by which engines are compared; train it "
            f"on a table that has some"
        )
    decides = {"source": source.package.digest, "processor": processor.name(), "choice": asdict(choice)}
    optimization_id = storage.digest({**decides, "libraries": _libraries()})
    done = versions.with_tag(client, name, _ID, optimization_id, retry_seconds=retry_seconds)
    if done is not None:
        found = versions.find(client, name, done, retry_seconds=retry_seconds)
        return {**found.package.provenance["optimization"], "model_version": done, "already_done": True}
    spec = _spec(source)
    trials = engine_trials.run(spec, splits, source.package.files, choice)
    best = choice.of(trials)
    report = {
        "model_name": name,
        "optimized_from": f"{name}/{source.version}",
        "metric": engine_trials.metric_of(spec.task),
        "engines": {trial.name: trial.to_json() for trial in trials},
        "processor": processor.name(),
        **asdict(choice),
        "engine": best.name,
    }
    number = None
    if best.name != EAGER:
        with _run(client, settings, source, best) as run:
            package = _package(settings, source, spec, snapshot, run, best, {**report, _ID: optimization_id})
            number = versions.register(
                client, package, run_id=run.run_id, name=name, alias=alias, retry_seconds=retry_seconds
            )
    return {**report, "model_version": number, "already_done": False, "seconds": round(time.monotonic() - started, 3)}


def _refuse_other(source: ModelVersion) -> None:
    """Raise RegistryError for a version that has no network as it was trained, or is optimised already."""
    of = f"model {source.name} version {source.version}"
    if origin := source.package.provenance.get("optimized_from"):
        raise RegistryError(f"{of}: it was optimised from {origin}; optimise that one")
    kinds = [str(engine_file.name_of(files)) for files in engine.models(source.package.files)]
    if EAGER not in kinds:
        members = f" of {', '.join(dict.fromkeys(kinds[1:]))}" if kinds[1:] else ""
        raise RegistryError(
            f"{of}: engine {kinds[0]}{members}; networks as they were trained alone are optimised: nothing else runs these"
        )


def _spec(source: ModelVersion) -> TrainingSpec:
    """Return what of a training the rows' streams and the evaluation need."""
    description = json.loads(source.package.files["model.json"])
    return TrainingSpec(
        run_uri="",
        tensors=Tensors.from_json(description["tensors"]),
        task=source.package.task,
        model=from_json(description["model"]),
        training=TrainingSettings(),
        streaming=StreamingSettings(),
    )


def _libraries() -> list[str]:
    """Return what the candidates are made and run with, by version."""
    names = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
    return [f"{name}=={engine_file.installed(name)}" for name in names]


def _run(client: Client, settings: Settings, source: ModelVersion, best: Trial) -> Run:
    tags = {"mlspark.optimized_from": f"{source.name}/{source.version}", "mlflow.source.type": "JOB"}
    return runs.open_run(client, settings.tracking, f"{source.name} v{source.version} {best.name}", tags=tags)


def _package(
    settings: Settings,
    source: ModelVersion,
    spec: TrainingSpec,
    snapshot: Snapshot,
    run: Run,
    best: Trial,
    report: dict[str, Any],
) -> Package:
    """Return the new version's package, evaluated; its run has folder, predictions and report then."""
    of_run = spec.at(storage.join(settings.root, "runs", run.run_id))
    snapshot.save(of_run.snapshot_uri)
    splits = {split: snapshot.where(split=split) for split in ("validation", "test")}
    network = engine.load({**source.package.files, **best.files}, threads=report["threads"])
    metrics, _ = held_out.evaluate(of_run, splits, network)
    run.log_params({name: report[name] for name in ("engine", "max_loss", "batch_rows", "threads", "processor")})
    run.log_text(json.dumps(report, indent=1) + "\n", "optimization.json")
    run.flush()
    return source.package.with_engine(
        best.files,
        provenance={
            "run_id": run.run_id,
            "metrics": {split: of_split.to_json() for split, of_split in metrics.items()},
            "optimized_from": report["optimized_from"],
            "optimization": report,
            _ID: report[_ID],
        },
    )


def lines(report: dict[str, Any]) -> Sequence[str]:
    """Return the report as people read it, a line each."""
    layout = "{:<20}{:>10}{:>9}{:>12}{:>14}{:>8}"
    eager = report["engines"][EAGER]["rows_per_second"]
    rows = [layout.format("engine", report["metric"], "loss", "difference", "rows/s", "faster")]
    for name, trial in report["engines"].items():
        if trial["refusal"]:
            rows.append(f"{name:<20}refused: {trial['refusal']}")
            continue
        rate = trial["rows_per_second"]
        rows.append(
            layout.format(
                name,
                "-" if trial["metric"] is None else f"{trial['metric']:.4f}",
                "-" if trial["loss"] is None else f"{trial['loss']:.4f}",
                f"{trial['difference']:.1g}",
                f"{rate:,.0f}",
                f"{rate / eager:.2f}x",
            )
        )
    source, number = report["optimized_from"], report["model_version"]
    if number is None:
        rows.append(f"no engine is faster than eager: {source} stays as it is")
    else:
        is_old = " (already done)" if report["already_done"] else ""
        rows.append(f"{report['engine']}: version {number} of {report['model_name']}, made of {source}{is_old}")
    return rows
