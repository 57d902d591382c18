"""What is kept of a training for people and later calls: what it was of, what its run shows, that it is finished. Driver."""

import contextlib
import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mlspark import storage, tables
from mlspark.contracts.data_frames import from_pandas
from mlspark.engines import source_code
from mlspark.errors import DamagedFile, MlsparkError
from mlspark.features.prepared import Prepared
from mlspark.models.custom import CustomSettings
from mlspark.registry import versions
from mlspark.registry.input_example import typical_row
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor
from mlspark.settings.pipeline import Settings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tracking.runs import Client, Dataset, Run
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)


def digest(spec: TrainingSpec, prepared: Prepared, snapshot: Snapshot) -> str:
    """Return 16 hex digits that two trainings share when the second would train the same again.

    They stand for the rows, what was prepared with them, the settings that decide the weights, and the code of a model or
    loss of the user's own.
    """
    decides = {
        "training": spec.identity(snapshot.fingerprint),
        "prepared": prepared.metadata["id"],
        "code": dict(_own_code(spec)),
    }
    return storage.digest(decides)[:16]


def _own_code(spec: TrainingSpec) -> Iterator[tuple[str, str]]:
    """Yield (file, SHA-256) of the sources of a model and a loss of the user's own."""
    for model in (spec.model, *(of.model for of in spec.members.values())):
        if isinstance(model, CustomSettings):
            for name, content in source_code.capture(model.factory).files.items():
                yield name, hashlib.sha256(content).hexdigest()
    function = getattr(getattr(spec.task, "loss", None), "function", "")
    module = None
    with contextlib.suppress(ImportError, ValueError):  # said by whoever calls it
        module = importlib.util.find_spec(function.partition(":")[0]) if function else None
    if module is not None and module.origin and Path(module.origin).is_file():
        yield f"loss {function}", hashlib.sha256(Path(module.origin).read_bytes()).hexdigest()


def describe(run: Run, spec: TrainingSpec, settings: Settings, prepared: Prepared, snapshot: Snapshot) -> None:
    """Keep with a new run what it is of: the pinned rows, all settings, the data sets."""
    snapshot.save(spec.snapshot_uri)
    config = settings.to_yaml()
    storage.write_bytes(storage.join(spec.run_uri, "config.yaml"), config.encode())
    run.log_text(config, "config.yaml")
    run.log_params(settings.model_dump(mode="json"))
    run.log_datasets(list(_datasets(settings, prepared, snapshot)))


def _datasets(settings: Settings, prepared: Prepared, snapshot: Snapshot) -> Iterator[Dataset]:
    place = {"path": prepared.table, "delta_table_version": prepared.version}
    for split in ("training", "validation", "test"):
        rows = snapshot.where(split="train" if split == "training" else split)
        if rows.num_rows:
            profile = {"num_rows": rows.num_rows}
            yield Dataset(f"{settings.name} {split}", rows.fingerprint, split, "delta_table", place, profile)
    for name, source in sources(prepared).items():
        profile = {"num_rows": source["rows_read"], "size_bytes": source["size_bytes"]}
        yield Dataset(
            f"{settings.name} source {name}", source["sha256"], "source", "spark", {"path": source["uri"]}, profile
        )


def sources(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Return the raw sources that the table was prepared from: source -> uri, kind, sha256, size_bytes, rows_read."""
    keys = ("uri", "kind", "sha256", "size_bytes", "rows_read")
    return {
        name: {key: source[key] for key in keys if key in source}
        for name, source in prepared.metadata["sources"].items()
    }


def example(package: Package, prepared: Prepared) -> Mapping[str, Any] | None:
    """Return a typical row as an example of what the model takes, None where such a row breaks a rule of the contract.

    Raises:
        TableError: the table's profile is absent or not what was written.
    """
    profile = tables.read_sidecar(prepared.table, prepared.metadata["id"], "profile.json")
    row = typical_row(package.input_contract, profile)
    try:
        predictor = Predictor(package)
        predictor.predict(from_pandas(pd.DataFrame([row]), predictor.contract))
    except MlsparkError as error:
        logger.info("the version has no input example: a row of typical values is not good: %s", error)
        return None
    return row


def keep(settings: Settings, name: str, report: Mapping[str, Any]) -> None:
    """Note that a training is finished, with its report."""
    storage.write_sealed(_uri(settings, name), json.loads(json.dumps(report)))


def finished(client: Client, settings: Settings, name: str) -> dict[str, Any] | None:
    """Return the report of a training that was finished and whose version is still registered under the same name.

    Raises:
        DamagedFile: the report is not what was kept.
    """
    uri = _uri(settings, name)
    if not storage.exists(uri):
        return None
    try:
        report = storage.read_sealed(uri)
    except DamagedFile as error:
        raise DamagedFile(f"{error}; delete the file to train again") from error
    model, version = report["model_name"], report["model_version"]
    seconds = settings.tracking.retry_seconds
    if model != settings.registry.model_name:
        return None
    if versions.run_of(client, model, version, retry_seconds=seconds) != report["run_id"]:
        return None
    alias = settings.registry.alias
    elsewhere = versions.with_alias(client, model, alias, retry_seconds=seconds) if alias else version
    logger.info(
        "%s: trained already, version %d of model %s%s; set training.recovery.resume=false to train another one",
        settings.name, version, model,
        "" if elsewhere == version else f", alias {alias} is " + (f"at version {elsewhere}" if elsewhere else "not set"),
    )  # fmt: skip
    return report | {"already_done": True}


def _uri(settings: Settings, name: str) -> str:
    return storage.join(settings.root, "runs", "finished", f"{name}.json")
