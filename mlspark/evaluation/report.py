"""The page of a version's evaluation, from what its run kept. Runs anywhere; needs no Spark."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlspark import storage
from mlspark.engines import engine
from mlspark.errors import ConfigError, MlsparkError
from mlspark.evaluation import examined_rows, predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.features.encoder import Encoder
from mlspark.features.tensors import Tensors
from mlspark.reports import evaluation_page
from mlspark.reports.evaluation_page import Evaluation
from mlspark.reports.rows_section import Examined
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.tasks.task import Task

logger = logging.getLogger(__name__)

SPLITS = ("test", "validation")
"""Splits that a page may be of, the preferred one first."""
_EPOCHS = "epochs.json"
_IMPORTANCE = "importance.json"


@dataclass(frozen=True)
class Evaluated:
    """A version, and what is known of it."""

    name: str
    version: int
    run_id: str
    files: Mapping[str, bytes]
    """The model's part of the version: model.json and what its engine needs besides."""
    task: Task
    tensors: Tensors
    """What the model reads."""
    snapshot: Snapshot
    """All rows that it was trained and evaluated on."""
    metrics: Mapping[str, Metrics]
    predictions: Mapping[str, str]
    """Split -> URI of its rows' predictions."""
    model: str
    """The model in words."""
    epochs: Sequence[Mapping[str, Any]] = ()
    best_epoch: int | None = None
    importance: Mapping[str, Any] | None = None
    """What raw columns are worth, see `kept_importance`."""


def keep_epochs(run_uri: str, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Keep with a run what its epochs ended with."""
    storage.write_json(storage.join(run_uri, _EPOCHS), list(epochs))


def kept_epochs(run_uri: str) -> list[dict[str, Any]]:
    """Return what `keep_epochs` kept, nothing where that is absent."""
    uri = storage.join(run_uri, _EPOCHS)
    return list(storage.read_json(uri)) if storage.exists(uri) else []


def keep_importance(run_uri: str, importance: Mapping[str, Any]) -> None:
    """Keep with a run what its version's raw columns are worth, in place of what was kept before."""
    storage.write_json(storage.join(run_uri, _IMPORTANCE), dict(importance))


def kept_importance(run_uri: str) -> dict[str, Any] | None:
    """Return what `keep_importance` kept, None where that is absent."""
    uri = storage.join(run_uri, _IMPORTANCE)
    return dict(storage.read_json(uri)) if storage.exists(uri) else None


def page(
    evaluated: Evaluated,
    *,
    split: str = "",
    row_ids: Sequence[int] = (),
    encoder: Encoder | None = None,
    is_thorough: bool = False,
) -> str:
    """Return the page.

    Args:
        evaluated: the version.
        split: whose rows are shown; empty: test, or validation where there are no test rows.
        row_ids: rows to look at; empty: the worst mistakes.
        encoder: see `examined_rows.examine`.
        is_thorough: see `examined_rows.examine`.

    Raises:
        ConfigError: the split has no predictions.
        PredictionsError: they are not what was kept.
        ExaminedError: rows that were asked for are not in the split.
    """
    if split and split not in evaluated.predictions:
        known = ", ".join(evaluated.predictions) or "none"
        raise ConfigError(f"--split {split}: no predictions of such rows (there are: {known})")
    split = split or next((name for name in SPLITS if name in evaluated.predictions), "")
    kept, examined = None, None
    if split:
        kept = predictions.read(evaluated.predictions[split])
        examined = _examined(evaluated, kept, split, row_ids, encoder, is_thorough)
    elif row_ids:
        raise ConfigError("--rows: no rows were evaluated; train with validation or test rows")
    return evaluation_page.render(
        Evaluation(
            title=f"{evaluated.name}: evaluation of version {evaluated.version}",
            about=(
                ("Predicts", f"{evaluated.task.target} ({evaluated.task.kind})"),
                ("Model", evaluated.model),
                ("Trained on", f"version {evaluated.snapshot.version} of {evaluated.snapshot.table}"),
                ("MLflow run", evaluated.run_id),
            ),
            task=evaluated.task,
            metrics=evaluated.metrics,
            split=split,
            rows=kept,
            epochs=evaluated.epochs,
            best_epoch=evaluated.best_epoch,
            examined=examined,
            importance=evaluated.importance,
        )
    )


def _examined(
    evaluated: Evaluated,
    kept: Predictions,
    split: str,
    row_ids: Sequence[int],
    encoder: Encoder | None,
    is_thorough: bool,
) -> Examined:
    """Return the rows that are looked at; without them, why, where nobody asked for certain ones."""
    if row_ids:
        chosen = examined_rows.asked_for(kept, row_ids)
    else:
        most = examined_rows.MOST_PICTURES if evaluated.tensors.pictures else examined_rows.MOST_ROWS
        chosen = examined_rows.worst(evaluated.task, kept, most=most)
    try:
        return examined_rows.examine(
            evaluated.task, kept, chosen,
            engine=engine.load_source(evaluated.files), tensors=evaluated.tensors, snapshot=evaluated.snapshot, split=split,
            encoder=encoder, is_thorough=is_thorough,
        )  # fmt: skip
    except MlsparkError as error:  # files that VACUUM has removed, a decoder that is absent: the figures stand
        if row_ids:
            raise
        logger.warning("evaluation: no row can be shown: %s", error)
        return Examined(chosen.title, (f"No row can be shown: {error}",), ())
