"""Single rows of a split: the worst mistakes or chosen ones, read again and explained. Runs anywhere; needs no Spark."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines.engine import Engine
from mlspark.errors import MlsparkError, one_line
from mlspark.evaluation import attribution
from mlspark.evaluation.attribution import GRADIENTS, SHAP, AttributionError, Contributions, HeatMap
from mlspark.evaluation.predictions import Predictions
from mlspark.features.encoder import Encoder
from mlspark.features.tensors import Tensors
from mlspark.reports.rows_section import Contribution, Examined, ExaminedRow, as_text
from mlspark.reports.wording import number
from mlspark.streaming import snapshots
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import PLAIN_FILES, Snapshot
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.judgement import classified, estimated
from mlspark.tasks.losses import key_text
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task

logger = logging.getLogger(__name__)

MOST_ROWS, MOST_PICTURES = 12, 24
"""Worst mistakes that are shown: as columns, as pictures."""
_REFERENCE_ROWS = 256
"""Rows of the split whose mean a network's attributions begin at."""
_SPREAD = 99.0
"""Percentile of a picture's attributions that is drawn as the most."""

_STARTS = {SHAP: "the mean of the trees", GRADIENTS: "what it is for the mean of other rows"}
"""Method of contributions -> what a row's number begins at, in words."""

Arrays = dict[str, NDArray[Any]]


class ExaminedError(MlsparkError):
    """Rows that were asked for are not in the split."""


@dataclass(frozen=True)
class Chosen:
    """Rows of a split: places in its predictions."""

    places: NDArray[np.int64]
    title: str
    note: str


def worst(task: Task, kept: Predictions, *, most: int) -> Chosen:
    """Return the rows with the greatest loss: of classes mistakes alone, of numbers by the absolute error.

    Equal rows are shown once; rows of weight 0 are left out.
    """
    counting = np.arange(len(kept)) if kept.weight is None else np.flatnonzero(kept.weight > 0)
    if isinstance(task, ClassTask):
        rows = classified(task, kept.outputs, kept.target, kept.weight)
        loss, is_wrong = rows.loss, rows.predicted != rows.target
        note = f"Of {int(is_wrong.sum()):,} mistakes those with the least probability of the true class."
    else:
        assert isinstance(task, RegressionTask), task
        loss = np.abs(estimated(task, kept.outputs, kept.target, kept.weight).error)
        is_wrong, note = np.ones(len(loss), np.bool_), "The rows with the greatest absolute error."
    order = np.lexsort([kept.row_id[counting], -loss])
    places = counting[order[is_wrong[order]]]
    seen: dict[tuple[int, float], int] = {}
    for place in places:
        seen.setdefault((int(kept.row_id[place]), float(kept.target[place])), int(place))
        if len(seen) == most:
            break
    return Chosen(np.array(list(seen.values()), np.int64), "Worst mistakes", note)


def asked_for(kept: Predictions, row_ids: Sequence[int]) -> Chosen:
    """Return the rows with these ids, in this order.

    Raises:
        ExaminedError: the split has no such row; names the ids.
    """
    found = {row_id: np.flatnonzero(kept.row_id == row_id) for row_id in row_ids}
    missing = [row_id for row_id, places in found.items() if not len(places)]
    if missing:
        raise ExaminedError(
            f"row_id {', '.join(map(str, missing))}: no such row among the {len(kept):,} that were evaluated; give the "
            f"row_id of a row of this split, as in the score table and in the file of predictions"
        )
    return Chosen(np.array([places[0] for places in found.values()], np.int64), "Chosen rows", "")


def examine(
    task: Task,
    kept: Predictions,
    chosen: Chosen,
    *,
    engine: Engine,
    tensors: Tensors,
    snapshot: Snapshot,
    split: str,
    encoder: Encoder | None = None,
    is_thorough: bool = False,
) -> Examined:
    """Return rows as the page shows them, with what makes their outputs where that is known.

    Args:
        task: resolved.
        kept: predictions of the split.
        chosen: of its rows.
        engine: of the version.
        tensors: what the model reads.
        snapshot: all rows that the model was trained and evaluated on.
        split: of the rows.
        encoder: says in words what each number stands for: values of the data are on the page then; None: numbers alone.
        is_thorough: whether networks that read pictures with convolutions get contributions of columns beside them, too;
            each costs as many passes as the path has steps.

    Raises:
        DatasetError, TableError: the rows cannot be read any more.
    """
    outputs, target = kept.outputs[chosen.places], kept.target[chosen.places]
    ids = [int(row_id) for row_id in kept.row_id[chosen.places]]
    notes = [chosen.note] if chosen.note else []
    if not ids:
        return Examined(chosen.title, ("None: all predictions are right.",), ())
    read = read_rows(snapshot, split, tensors, ids)
    maps, parts, remarks = _explained(task, outputs, target, engine, read, tensors, snapshot, split, is_thorough)
    notes += remarks
    has_columns = bool(tensors.num_dense or tensors.cardinalities)
    rows = tuple(
        ExaminedRow(
            ids[place],
            *_words(task, outputs[place : place + 1], target[place : place + 1]),
            pictures={name: read[name][place] for name in tensors.pictures},
            maps={name: heat.values[place] for name, heat in maps.items()},
            contributions=()
            if parts is None or not has_columns
            else _contributions(parts, place, read, tensors, encoder),
        )
        for place in range(len(ids))
    )
    return Examined(chosen.title, tuple(notes), rows)


def _explained(
    task: Task,
    outputs: NDArray[Any],
    target: NDArray[Any],
    engine: Engine,
    read: Arrays,
    tensors: Tensors,
    snapshot: Snapshot,
    split: str,
    is_thorough: bool,
) -> tuple[dict[str, HeatMap], Contributions | None, list[str]]:
    """Return maps of pictures, contributions of columns, and what is to be said of both."""
    maps: dict[str, HeatMap] = {}
    parts = None
    try:
        factors = attribution.explained(task, outputs, target)
        maps = attribution.heat_maps(engine, read, factors)
        has_columns = bool(tensors.num_dense or tensors.cardinalities)
        if set(maps) != set(tensors.pictures) or not tensors.pictures or (is_thorough and has_columns):
            reference = read_rows(snapshot, split, tensors, None)
            parts = attribution.contributions(engine, read, factors, reference=reference)
            maps |= {name: spread(values) for name, values in parts.pixels.items() if name not in maps}
    except Exception as error:  # a network of one's own need not have gradients, or take pixels as floats
        if not isinstance(error, AttributionError):
            logger.warning("evaluation: rows are not explained: %s: %s", type(error).__name__, error)
        return maps, None, [*_explanations(task, maps, None), f"Not explained: {one_line(str(error))}."]
    return maps, parts, list(_explanations(task, maps, parts))


def read_rows(snapshot: Snapshot, split: str, tensors: Tensors, ids: Sequence[int] | None) -> Arrays:
    """Return the tensors of the rows with these ids, in this order; None: of some rows of the split."""
    table = snapshot.where(split=split)
    if ids is not None:
        version = None if snapshot.version == PLAIN_FILES else snapshot.version
        where = [("split", "=", split), (tensors.row_id, "in", ids)]
        table = snapshots.take(snapshot.table, version=version, where=where)
    batches: list[Arrays] = []
    settings = StreamingSettings(
        remainder="keep", lanes=1, workers=1, pool="thread", shuffle_window_rows=_REFERENCE_ROWS, read_ahead_bytes=0
    )
    with open_feature_table(
        table, tensors, settings, rank=0, world_size=1,
        global_batch_size=min(_REFERENCE_ROWS, max(1, table.num_rows)), seed=0, shuffle=False,
    ) as stream:  # fmt: skip
        for batch in stream:
            batches.append({name: values.numpy() for name, values in batch.items()})
            if ids is None:
                break
    read = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    if ids is None:
        return read
    place_of = {int(row_id): place for place, row_id in enumerate(read["row_id"])}
    places = [place_of[row_id] for row_id in ids]
    return {name: values[places] for name, values in read.items()}


def _words(task: Task, outputs: NDArray[Any], target: NDArray[Any]) -> tuple[str, tuple[str, ...]]:
    """Return title and lines of one row."""
    if isinstance(task, ClassTask):
        rows, classes = classified(task, outputs, target, None), task.known_classes
        true, predicted = (key_text(classes[int(ids[0])]) for ids in (rows.target, rows.predicted))
        verdict = f"{true}, predicted {predicted}" if true != predicted else f"{true}, predicted so"
        lines = [f"probability of {predicted} {rows.probability[0]:.4f}"]
        if true != predicted:
            lines.append(f"probability of {true} {rows.true_probability[0]:.2g}, log loss {rows.loss[0]:.3f}")
        return verdict, tuple(lines)
    assert isinstance(task, RegressionTask), task
    numbers = estimated(task, outputs, target, None)
    true, predicted = number(float(numbers.target[0])), number(float(numbers.predicted[0]))
    return f"{true}, predicted {predicted}", (f"error {number(float(numbers.error[0]))}",)


def spread(values: NDArray[np.float64]) -> HeatMap:
    """Return what pixels add, upwards, as a map."""
    upwards = np.maximum(values, 0.0)
    most = np.percentile(upwards, _SPREAD, axis=(1, 2), keepdims=True)
    return HeatMap(GRADIENTS, np.clip(upwards / np.where(most > 0, most, 1.0), 0.0, 1.0))


def _explanations(task: Task, maps: Mapping[str, HeatMap], parts: Contributions | None) -> Iterator[str]:
    """Yield what maps and contributions are of."""
    if isinstance(task, BinaryTask):
        what = f"the log odds of {key_text(task.event_class)}"
    elif isinstance(task, ClassTask):
        what = "how far the logit of the predicted class is above that of the true one, or where they agree of the next"
    else:
        what = "the output that the prediction is made of"
    for method in dict.fromkeys(heat.method for heat in maps.values()):
        yield f"Orange: the places that add most to {what} ({method})."
    if parts is None:
        return
    start = _STARTS.get(
        parts.method, "what it is where the members begin: the mean of the trees, the mean of other rows"
    )
    gap = float(np.abs(parts.start + parts.values.sum(axis=1) - parts.output).max())
    low, high = float(parts.start.min()), float(parts.start.max())
    started = f"{low:.3f}" if high - low < 5e-4 else f"{low:.3f} to {high:.3f}"
    near = f", within {gap:.1g}" if gap >= 1e-4 else ""
    yield (
        f"Bars: what each column adds to {what} ({parts.method}). It begins at {started}, {start}; all together lead to the "
        f"number itself{near}. Read as: what the model reads, scaled; of a category its id."
    )


def _contributions(
    parts: Contributions, place: int, read: Arrays, tensors: Tensors, encoder: Encoder | None
) -> list[Contribution]:
    """Return what each column adds to the output of a row."""
    values: dict[str, Any] = {}
    for name in ("dense", "ids"):
        values |= dict(zip(tensors.columns(name), read[name][place].tolist() if name in read else (), strict=True))
    words = {} if encoder is None else _meanings(encoder, values)
    return [
        Contribution(
            column,
            float(value),
            "a picture" if column not in values else as_text(values[column]),
            words.get(column, ""),
        )
        for column, value in zip(parts.columns, parts.values[place], strict=True)
    ]


def _meanings(encoder: Encoder, values: Mapping[str, Any]) -> dict[str, str]:
    """Return in words what ids stand for: column -> "6 = Private"."""
    outputs = iter(encoder.outputs)
    meanings = {}
    for feature in encoder.features:
        for place, _ in enumerate(feature.outputs):
            output = next(outputs)
            if output.ids and output.name in values:
                meanings[output.name] = feature.words_of(place, values[output.name])
    return meanings
