"""Versions beside one another on the same rows: by kept predictions if these are of the same rows, else scored anew."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.engines import engine
from mlspark.errors import ConfigError, MlsparkError, one_line
from mlspark.evaluation import comparison_report, latency, predictions, slices, split_rows
from mlspark.evaluation.compared import Compared, ComparedVersion
from mlspark.evaluation.comparison import RESAMPLES, SEED, compare
from mlspark.evaluation.paired_rows import ComparisonError, check_tasks, counting, same_rows
from mlspark.evaluation.predictions import Predictions, PredictionsError
from mlspark.features.tensors import Tensors
from mlspark.registry import versions
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import latency as raw_latency
from mlspark.settings.pipeline import Settings
from mlspark.stages import raw_rows
from mlspark.stages.evaluation import words_of
from mlspark.stages.rescoring import Rescored, rescore
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.task import Task
from mlspark.tracking import runs
from mlspark.tracking.runs import Client

logger = logging.getLogger(__name__)

PAGE, JSON = "comparison.html", "comparison.json"
"""Files that the newest version's run keeps."""

Spark = Callable[[], SparkSession]
"""Starts Spark when it is first asked for: comparing kept predictions needs none."""


@dataclass(frozen=True)
class Wanted:
    """What is to be compared, and how."""

    versions: tuple[tuple[str, int | str], ...]
    """Name, and number or alias, of at least two versions; the others are held against the first."""
    split: str = "test"
    slices: tuple[str, ...] = ()
    """Columns of the contract or of joins."""
    metric: str = ""
    """Of the slices; empty: accuracy, for numbers the task's default."""
    confidence: float = 0.95
    resamples: int = RESAMPLES


def compare_versions(settings: Settings, wanted: Wanted, spark: Spark) -> Compared:
    """Return how far versions are apart on the same rows, and keep page and JSON with the newest version's run.

    Args:
        settings: where versions, runs and tables are; for slices, and for versions of other rows, also sources and contract.
        wanted: what is to be compared.
        spark: starts Spark; called for slices and for versions of other rows alone.

    Raises:
        RegistryError: no such version.
        ComparisonError: the versions do not predict the same, or no rows are left.
        ConfigError: a column or metric is not there, or fewer than two versions.
        SourceError: the sources cannot be read.
    """
    if wanted.slices:
        raw_rows.check_columns(settings, wanted.slices)
    client = runs.connect(settings.tracking, settings.root)
    found = _found(client, settings, wanted)
    first = found[0].package.task
    for other in found[1:]:
        check_tasks(first, other.package.task, names=(label_of(found[0]), label_of(other)))
    metric = first.metric(wanted.metric, setting="--metric") if wanted.metric else slices.default_metric(first)
    origin, remarks, anew = f"kept predictions of the {wanted.split} rows", list[str](), None
    try:
        kept = _kept(settings, found, wanted.split)
    except (ComparisonError, PredictionsError) as error:
        logger.info("compare: %s", one_line(str(error)))
        logger.info("compare: scoring the %s rows of the sources with each version", wanted.split)
        packages = {label_of(each): each.package for each in found}
        anew = rescore(spark(), settings, wanted.split, packages, wanted.slices, first)
        anew, remarks = _unlearned(spark(), settings, found, anew)
        kept = [_in_order(anew.predictions(label)) for label in packages]
        origin = f"{wanted.split} rows of the sources, scored here with each version, for they kept no same rows"
    names = [label_of(each) for each in found]
    judged = [slices.Judged(name, each.package.task, rows) for name, each, rows in zip(names, found, kept, strict=True)]
    comparisons = tuple(
        compare(
            first, kept[0], other.rows, challenger_task=other.task, names=(names[0], other.name),
            confidence=wanted.confidence, resamples=wanted.resamples,
        )
        for other in judged[1:]
    )  # fmt: skip
    columns = _slice_values(settings, wanted, spark, None if anew is None else anew.rows, kept[0], first)
    by_column = tuple(
        slices.by_slice(
            name, values, judged, metric=metric, confidence=wanted.confidence, resamples=wanted.resamples, seed=SEED
        )
        for name, values in columns.items()
    )
    of_versions = tuple(
        _version(client, settings, each, rows, wanted, anew, remarks) for each, rows in zip(found, kept, strict=True)
    )
    compared = Compared(wanted.split, origin, of_versions, comparisons, by_column, tuple(remarks))
    _keep(client, settings, compared)
    return compared


def label_of(version: ModelVersion) -> str:
    """Return NAME/NUMBER."""
    return f"{version.name}/{version.version}"


def _found(client: Client, settings: Settings, wanted: Wanted) -> list[ModelVersion]:
    found = [
        versions.find(client, name, which, retry_seconds=settings.tracking.retry_seconds)
        for name, which in wanted.versions
    ]
    if len({label_of(each) for each in found}) < max(2, len(found)):
        raise ConfigError(
            f"compare: {', '.join(map(label_of, found)) or 'no version'}: give two or more different versions, the first "
            f"one is what the others are held against"
        )
    return found


def _kept(settings: Settings, found: Sequence[ModelVersion], split: str) -> list[Predictions]:
    """Return what each version's run kept of the split, the same rows in the same order; rows of weight 0 left out.

    Raises:
        PredictionsError: a run kept none.
        ComparisonError: not of the same rows.
    """
    kept = []
    for each in found:
        uri = predictions.uri_of(_run_uri(settings, each), split)
        try:
            kept.append(predictions.read(uri))
        except PredictionsError as error:
            raise PredictionsError(f"{label_of(each)}: {error}") from error
    pairs = [
        same_rows(kept[0], rows, names=(label_of(found[0]), label_of(each)))
        for each, rows in zip(found[1:], kept[1:], strict=True)
    ]
    return [counting(rows) for rows in (pairs[0][0], *(other for _, other in pairs))]


def _run_uri(settings: Settings, version: ModelVersion) -> str:
    return storage.join(settings.root, "runs", version.package.provenance["run_id"])


def _unlearned(
    spark: SparkSession, settings: Settings, found: Sequence[ModelVersion], anew: Rescored
) -> tuple[Rescored, list[str]]:
    """Return the rows that no version was trained on, and remarks on the others: of rows it knows a version looks better.

    Raises:
        ComparisonError: no rows are left.
    """
    raw = anew.rows
    remarks, is_left = [], np.ones(raw.num_rows, bool)
    for each in found:
        label, provenance = label_of(each), each.package.provenance
        try:
            learned = raw_rows.training_ids(spark, provenance["table"], provenance["table_version"])
        except MlsparkError as error:
            remarks.append(f"Whether {label} was trained on any of these rows is not known: {one_line(str(error))}")
            continue
        is_known = np.isin(raw[raw_rows.OWN[0]].to_numpy(), learned)
        if is_known.any():
            remarks.append(f"{int(is_known.sum()):,} rows are left out, for {label} was trained on them.")
        is_left &= ~is_known
    if not is_left.any():
        raise ComparisonError(
            f"{', '.join(map(label_of, found))}: there are no rows of the split to compare on ({raw.num_rows:,} in the "
            f"sources{'; ' if remarks else ''}{' '.join(remarks)}); give --split another split, or a --config whose "
            f"sources.test no version has learnt from"
        )
    return anew.where(is_left), remarks


def _in_order(rows: Predictions) -> Predictions:
    """Return the rows of a weight above 0 in the order of kept ones."""
    return counting(same_rows(rows, rows, names=("", ""))[0])


def _slice_values(
    settings: Settings, wanted: Wanted, spark: Spark, raw: pa.Table | None, rows: Predictions, task: Task
) -> dict[str, list[Any]]:
    """Return the values of the sliced columns, in the order of `rows`.

    Raises:
        ComparisonError: rows are not in the sources any more.
    """
    if not wanted.slices:
        return {}
    if raw is None:
        raw = raw_rows.of_split(spark(), settings, wanted.split, wanted.slices, task)
    mine = _keys(rows.row_id, rows.target)
    theirs = _keys(raw[raw_rows.OWN[0]].to_numpy(), raw[raw_rows.OWN[1]].to_numpy())
    numbers = np.unique(np.concatenate([theirs, mine]), return_inverse=True)[1]
    place_of = np.full(len(numbers), -1)
    place_of[numbers[: len(theirs)]] = np.arange(len(theirs))
    places = place_of[numbers[len(theirs) :]]
    missing = places < 0
    if missing.any():
        raise ComparisonError(
            f"--slice: {int(missing.sum()):,} of {len(rows):,} {wanted.split} rows are not in the sources of this pipeline "
            f"any more, as row_id {rows.row_id[missing][0]}; give the --config, and files, of the versions' training"
        )
    # Rows of one id and label are equal in all their columns, so that any of them will do.
    return {name: raw[name].take(pa.array(places)).to_pylist() for name in wanted.slices}


def _keys(row_id: NDArray[np.int64], label: NDArray[Any]) -> NDArray[Any]:
    """Return what a row is known by (n,): its id, which leaves out the label, with the label."""
    keys = np.empty(len(row_id), [("row_id", np.int64), ("label", np.float64)])
    keys["row_id"], keys["label"] = row_id, label
    return keys


def _version(
    client: Client,
    settings: Settings,
    version: ModelVersion,
    rows: Predictions,
    wanted: Wanted,
    anew: Rescored | None,
    remarks: list[str],
) -> ComparedVersion:
    package = version.package
    try:
        row = versions.example(client, version.name, version.version, retry_seconds=settings.tracking.retry_seconds)
        of_raw = None if row is None else raw_latency.milliseconds(package, row)
        encoded = _encoded(settings, version, wanted.split, anew)
        taken = latency.measure(package.task, engine.load(package.files), encoded, raw_row_milliseconds=of_raw)
    except MlsparkError as error:
        taken = None
        remarks.append(f"The latency of {label_of(version)} was not measured: {one_line(str(error))}")
    cost = package.provenance.get("cost")
    return ComparedVersion(
        label=label_of(version),
        run_id=package.provenance["run_id"],
        model=words_of(package.files),
        task=package.task,
        rows=rows,
        metrics=rows.metrics(package.task),
        size_bytes=sum(map(len, package.files.values())),
        train_seconds=package.provenance.get("train_seconds"),
        latency=taken,
        cost=cost if isinstance(cost, dict) else {},
    )


def _encoded(
    settings: Settings, version: ModelVersion, split: str, anew: Rescored | None
) -> Mapping[str, NDArray[Any]]:
    """Return the tensors of some rows: of the sources where these were scored anew, else of the feature table."""
    if anew is not None:
        return anew.examples[label_of(version)]
    uri = storage.join(_run_uri(settings, version), "snapshot.json")
    if not storage.exists(uri):
        raise ComparisonError(f"its run has no {uri}")
    tensors = Tensors.from_json(json.loads(version.package.files["model.json"])["tensors"])
    of_split = Snapshot.load(uri).where(split=split)
    return tensors.pick(split_rows.drawn(of_split, tensors, most=latency.BATCH_ROWS))


def _keep(client: Client, settings: Settings, compared: Compared) -> None:
    """Keep page and JSON with the newest version's run; a store that refuses is a warning."""
    try:
        started = [runs.started(client, each.run_id) for each in compared.versions]
        newest = compared.versions[int(np.argmax(started))]
        run = runs.Run(client, newest.run_id, retry_seconds=settings.tracking.retry_seconds)
        run.log_text(comparison_report.page(compared), PAGE)
        run.log_text(json.dumps(compared.to_json(), indent=1, allow_nan=False) + "\n", JSON)
    except MlsparkError as error:
        logger.warning("compare: not kept with a run: %s", one_line(str(error)))
        return
    logger.info("compare: %s and %s are kept with run %s of %s", PAGE, JSON, newest.run_id, newest.label)
