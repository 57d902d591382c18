"""The page of a version's evaluation: kept with its run by the train stage, or made anew for chosen rows. Driver."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlspark import storage
from mlspark.errors import one_line
from mlspark.evaluation import predictions, report
from mlspark.evaluation.report import SPLITS, Evaluated
from mlspark.features.tensors import Tensors
from mlspark.registry import versions
from mlspark.settings.pipeline import Settings
from mlspark.stages import version_rows
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.tracking import runs
from mlspark.tracking.runs import Run
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

PAGE = "evaluation.html"
"""Name of the page among the files of a run."""


def keep(
    settings: Settings, spec: TrainingSpec, learned: LearnedModel, run: Run, snapshot: Snapshot, version: int
) -> None:
    """Keep with a run what the evaluation of its version shows. What cannot be shown is a warning: the version stands."""
    if not settings.registry.evaluation_page:
        return
    started = time.monotonic()
    try:
        report.keep_epochs(spec.run_uri, learned.epochs)
        page = report.page(
            Evaluated(
                name=settings.registry.model_name,
                version=version,
                run_id=run.run_id,
                files=learned.files,
                task=spec.task,
                tensors=spec.tensors,
                snapshot=snapshot,
                metrics=learned.metrics,
                predictions=learned.predictions,
                model=words_of(learned.files),
                epochs=learned.epochs,
                best_epoch=learned.report.get("best_epoch"),
            )
        )
        run.log_text(page, PAGE)
    except Exception as error:  # whatever it is: the version is registered, and good without the page
        logger.warning(
            "evaluation: no page of version %d is kept: %s: %s; the version stands, make it by mlspark evaluate",
            version, type(error).__name__, one_line(str(error)),
        )  # fmt: skip
        return
    logger.info("evaluation: %s is kept with run %s, in %.1f s", PAGE, run.run_id, time.monotonic() - started)


def page(
    settings: Settings,
    name: str,
    wanted: int | str,
    *,
    split: str = "",
    row_ids: Sequence[int] = (),
    in_words: bool = False,
) -> str:
    """Return the page of a registered version.

    Args:
        settings: where versions, runs and tables are.
        name: of the registered model.
        wanted: number or alias of the version.
        split: whose rows are shown; empty: test, or validation where there are no test rows.
        row_ids: rows to look at; empty: the worst mistakes.
        in_words: whether categories stand on the page beside their ids, which are values of the data.

    Raises:
        RegistryError: no such version, or its run has no folder below storage.root.
        MlsparkError: a split or rows that there are not, or files that are gone; see `report.page`.
    """
    client = runs.connect(settings.tracking, settings.root)
    version = versions.find(client, name, wanted, retry_seconds=settings.tracking.retry_seconds)
    package, provenance = version.package, version.package.provenance
    run_uri, snapshot = version_rows.of_run(settings, version)
    kept = {each: predictions.uri_of(run_uri, each) for each in SPLITS}
    evaluated = Evaluated(
        name=name,
        version=version.version,
        run_id=provenance["run_id"],
        files=package.files,
        task=package.task,
        tensors=Tensors.from_json(json.loads(package.files["model.json"])["tensors"]),
        snapshot=snapshot,
        metrics={each: Metrics.from_json(values) for each, values in provenance["metrics"].items()},
        predictions={each: uri for each, uri in kept.items() if storage.exists(uri)},
        model=words_of(package.files),
        epochs=report.kept_epochs(run_uri),
        best_epoch=provenance.get("best_epoch"),
        importance=report.kept_importance(run_uri),
    )
    encoder = package.encoder if in_words else None
    return report.page(evaluated, split=split, row_ids=row_ids, encoder=encoder, is_thorough=True)


def words_of(files: Mapping[str, bytes]) -> str:
    """Return the model's settings in a line."""
    model: dict[str, Any] = json.loads(files["model.json"]).get("model", {})
    others = ", ".join(
        f"{key}={value}" for key, value in model.items() if key not in ("kind", "weights") and value is not None
    )
    return f"{model.get('kind', 'unknown')}" + (f" ({others})" if others else "")
