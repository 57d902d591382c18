"""What the components of the pipeline do: the stages, each with its record. In the container of a component."""

import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlspark.errors import MlsparkError
from mlspark.kubeflow import records
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def load(settings: str, overrides: Sequence[str]) -> Settings:
    """Return the settings that the parameters of the pipeline say.

    Args:
        settings: YAML of all settings.
        overrides: "section.key=value", over them; text, since Kubeflow makes floats of whole numbers in lists.

    Raises:
        ConfigError: one line naming every wrong key with its remedy.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "settings.yaml")
        file.write_text(settings, encoding="utf-8")
        return loading.load([str(file)], list(overrides))


def prepare(settings: str, overrides: Sequence[str], run: str, report: str) -> int:
    """Write the feature table and return its version; `report` is the file for the stage's report."""

    def work(loaded: Settings) -> dict[str, Any]:
        from mlspark.stages import check
        from mlspark.stages.prepare import prepare

        check.check_prepare(loaded)
        with _spark("prepare", loaded) as start:
            return prepare(start(), loaded)

    return int(_recorded("prepare", settings, overrides, run, report, work)["version"])


def train(settings: str, overrides: Sequence[str], run: str, report: str) -> int:
    """Train on the newest feature table and return the version of the model that was registered."""

    def work(loaded: Settings) -> dict[str, Any]:
        from mlspark.stages import check
        from mlspark.stages.train import train

        check.check_train(loaded)
        with _spark("train", loaded) as start:
            return train(start(), loaded)

    return int(_recorded("train", settings, overrides, run, report, work)["model_version"])


def evaluate(
    settings: str, overrides: Sequence[str], run: str, version: int, page: str
) -> tuple[str, dict[str, float]]:
    """Write the page of a version's evaluation.

    Returns:
        `promotion.mode`, by which the pipeline goes on; metrics of the test rows, else of the validation rows.
    """
    found: dict[str, float] = {}
    mode = ""

    def work(loaded: Settings) -> dict[str, Any]:
        from mlspark.registry import versions
        from mlspark.stages import evaluation
        from mlspark.tracking import runs

        nonlocal mode
        mode, name = loaded.promotion.mode, loaded.registry.model_name
        client = runs.connect(loaded.tracking, loaded.root)
        model = versions.find(client, name, version, retry_seconds=loaded.tracking.retry_seconds)
        Path(page).write_text(evaluation.page(loaded, name, version), encoding="utf-8")
        metrics = model.package.provenance["metrics"]
        split = "test" if "test" in metrics else "validation"
        found.update({key: float(value) for key, value in metrics[split].items() if isinstance(value, int | float)})
        return {"model_name": name, "model_version": version, "metrics": metrics}

    _recorded("evaluate", settings, overrides, run, "", work)
    return mode, found


def promote(settings: str, overrides: Sequence[str], run: str, version: int, report: str) -> str:
    """Decide whether a version takes the place of the one in use, and return the verdict."""

    def work(loaded: Settings) -> dict[str, Any]:
        from mlspark.stages.promote import promote

        with _spark("promote", loaded) as start:
            return promote(loaded, version, spark=start)

    return str(_recorded("promote", settings, overrides, run, report, work)["verdict"])


def score(settings: str, overrides: Sequence[str], run: str, report: str) -> None:
    """Score `scoring.source` with `scoring.model`; nothing where no rows are named."""

    def work(loaded: Settings) -> dict[str, Any]:
        from mlspark.stages import check
        from mlspark.stages.score import score

        if loaded.scoring.source is None:
            logger.info("score: scoring.source is not set, nothing is scored")
            return {"skipped": True}
        check.check_score(loaded)
        with _spark("score", loaded) as start:
            return score(start(), loaded)

    _recorded("score", settings, overrides, run, report, work)


def sum_up(settings: str, overrides: Sequence[str], run: str, state: str, message: str, report: str) -> dict[str, Any]:
    """Write what came of the run, and return it; also where the settings are what is wrong."""
    try:
        summed = records.summary(load(settings, overrides), run, state, message)
    except MlsparkError as error:
        summed = {"run": run, "pipeline": "", "state": state.lower(), "failed_step": "", "steps": {}}
        summed["message"] = records.failure(error, 0)["message"]
    Path(report).write_text(json.dumps(summed, indent=1) + "\n", encoding="utf-8")
    _log()
    logger.info("%s %s: %s %s", summed["pipeline"], run, summed["state"], summed["message"])
    return summed


def _recorded(
    step: str,
    settings: str,
    overrides: Sequence[str],
    run: str,
    report: str,
    work: Callable[[Settings], dict[str, Any]],
) -> dict[str, Any]:
    """Return the report of a step, `cost` and all, once it is kept; of one that fails the error is, and raised."""
    from mlspark.stages import costs, job_records

    _log()
    started = time.monotonic()
    loaded = load(settings, overrides)
    try:
        price = costs.price(loaded)  # what is wrong with it is refused before the work
        done = work(loaded)
    except BaseException as error:
        records.keep(loaded, run, step, records.failure(error, time.monotonic() - started))
        raise
    seconds = time.monotonic() - started
    done = job_records.ended(loaded, step, done, seconds, price=price)
    records.keep(loaded, run, step, {"state": records.SUCCEEDED, "report": done, "seconds": round(seconds, 3)})
    if report:
        Path(report).write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return done


def _log() -> None:
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)


@contextlib.contextmanager
def _spark(step: str, settings: Settings) -> "Iterator[Callable[[], SparkSession]]":
    """Yield what starts Spark when it is called; it is stopped at the end."""
    from mlspark import session
    from mlspark.sources import catalog

    with contextlib.ExitStack() as stack:

        def start() -> "SparkSession":
            spark = session.start(
                f"mlspark {step} {settings.name}", catalog.spark_settings(settings.all_sources.values())
            )
            stack.callback(spark.stop)
            return spark

        yield start
