"""The importance of raw columns to a registered version, by rows that it has not learnt from; kept with its run. Driver."""

import json
import logging
import time
from typing import Any

from mlspark.engines import engine
from mlspark.errors import ConfigError, one_line
from mlspark.evaluation import importance as shuffling
from mlspark.evaluation import report, split_rows
from mlspark.evaluation.importance import Importance, Rows
from mlspark.features.tensors import Tensors
from mlspark.registry import versions
from mlspark.settings.pipeline import Settings
from mlspark.stages import version_rows
from mlspark.tracking import runs
from mlspark.tracking.runs import Run

logger = logging.getLogger(__name__)

FILE = "importance.json"
"""Name of the result among the files of the version's run."""


def importance(
    settings: Settings,
    name: str,
    wanted: int | str,
    *,
    split: str,
    metric: str = "",
    repeats: int = shuffling.REPEATS,
    seed: int = 0,
    most: int = 0,
) -> dict[str, Any]:
    """Return the importance of raw columns as JSON values, and keep them with the version's run.

    Args:
        settings: where versions, runs and tables are.
        name: of the registered model.
        wanted: number or alias of the version.
        split: validation or test.
        metric: of the task; empty: its own.
        repeats: shuffles of each column.
        seed: of the shuffles.
        most: rows, drawn where there are more; 0: all.

    Raises:
        RegistryError: no such version, or its run has no folder below storage.root.
        ConfigError: the version has no rows of this split, or the task no such metric.
        ImportanceError: too few rows, or the metric is not defined on them.
        DatasetError, TableError: the rows cannot be read any more.
    """
    started = time.monotonic()
    client = runs.connect(settings.tracking, settings.root)
    version = versions.find(client, name, wanted, retry_seconds=settings.tracking.retry_seconds)
    package, task = version.package, version.package.task
    metric = task.metric(metric, setting="--metric")
    run_uri, snapshot = version_rows.of_run(settings, version)
    of_split = snapshot.where(split=split)
    if not of_split.num_rows:
        raise ConfigError(f"--split {split}: the version was trained without such rows; choose the other split")
    tensors = Tensors.from_json(json.loads(package.files["model.json"])["tensors"])
    drawn = split_rows.drawn(of_split, tensors, most=most or of_split.num_rows)
    rows = Rows(tensors.pick(drawn), drawn["target"], drawn.get("weight"))
    value, found = shuffling.importances(
        task,
        engine.load(package.files).run,
        package.encoder,
        tensors,
        rows,
        metric=metric,
        repeats=repeats,
        seed=seed,
        on_group=lambda columns: logger.info("importance: %s", ", ".join(columns)),
    )
    result = {
        "model": name,
        "version": version.version,
        "split": split,
        "rows": len(rows.target),
        "metric": metric,
        "value": value,
        "repeats": repeats,
        "seed": seed,
        "columns": [_to_json(each) for each in found],
    }
    report.keep_importance(run_uri, result)
    run_id = package.provenance["run_id"]
    try:
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        Run(client, run_id, retry_seconds=settings.tracking.retry_seconds).log_text(text, FILE)
    except Exception as error:  # a run that was deleted: the file beside the rows is there
        logger.warning("importance: not kept with run %s: %s", run_id, one_line(str(error)))
    logger.info(
        "importance: %s version %d: %d columns, %d shuffles of %s rows each, in %.1f s",
        name, version.version, len(found), repeats, f"{len(rows.target):,}", time.monotonic() - started,
    )  # fmt: skip
    return result


def _to_json(found: Importance) -> dict[str, Any]:
    return {
        "columns": list(found.columns),
        "importance": found.value,
        "interval": list(found.interval),
        "repeats": list(found.repeats),
    }
