"""What becomes of rows: a loaded version, and its answers row by row."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlspark.contracts.check_arrow import Broken
from mlspark.contracts.check_json import Row
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor, Verdicts

_MOST_SHOWN = 200
"""Most characters of a value that an answer repeats."""


@dataclass(frozen=True, eq=False)
class Served:
    """A registered version, loaded and warm."""

    name: str
    number: int
    package: Package
    predictor: Predictor
    example: Mapping[str, Any] | None
    """A row that it takes; None where the version has none."""

    @classmethod
    def load(
        cls, name: str, number: int, package: Package, example: Mapping[str, Any] | None, *, allow_decoder: bool = False
    ) -> "Served":
        """Return a version that has predicted once, so that no request waits for what is made at the first prediction.

        Raises:
            RegistryError: see `Predictor`.
        """
        predictor = Predictor(package, allow_decoder=allow_decoder)
        if "torch" in sys.modules and not package.encoder.images:
            # Of a few rows without pictures there is nothing to share out: torch's second thread spins between the calls,
            # and a row takes 3.0 ms of processor time in place of 1.35 (2 cores).
            sys.modules["torch"].set_num_threads(1)
        tensors = package.encoder.tensors(package.task)
        predictor.predict_encoded({spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in tensors.specs})
        predictor.judge([{} if example is None else example])
        return cls(name, number, package, predictor, example)


@dataclass(frozen=True)
class Answers:
    """What becomes of n rows of JSON."""

    predictions: Sequence[dict[str, Any] | None]
    """Of each row, by column of the task's predictions; None for a row that is refused."""
    broken: Sequence[Broken]
    """Every rule that a row breaks, row by row."""
    _verdicts: Verdicts
    _first_row: int

    @property
    def rows(self) -> pa.Table:
        """The rows in the contract's types."""
        return self._verdicts.rows.slice(self._first_row, len(self.predictions))


def judged(served: Served, requests: Sequence[Sequence[Row]]) -> list[Answers]:
    """Return the answers to several requests, computed together; each is what it would be alone."""
    rows = [row for request in requests for row in request]
    verdicts = served.predictor.judge(rows)
    predictions = by_row(verdicts, len(rows))
    answers, start = [], 0
    for request in requests:
        end = start + len(request)
        broken = [each.moved(-start) for each in verdicts.broken if start <= each.row < end]
        answers.append(Answers(predictions[start:end], broken, verdicts, start))
        start = end
    return answers


def by_row(verdicts: Verdicts, num_rows: int) -> list[dict[str, Any] | None]:
    """Return the predictions of each of n rows by column; None for a refused one."""
    columns = [values.tolist() for values in verdicts.predictions.values()]
    predictions: list[dict[str, Any] | None] = [None] * num_rows
    for row, *values in zip(verdicts.good.tolist(), *columns, strict=True):
        predictions[row] = dict(zip(verdicts.predictions, values, strict=True))
    return predictions


def columns(served: Served, predictions: Sequence[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
    """Return the predictions of rows as columns, None for a refused row."""
    return {
        name: [None if row is None else row[name] for row in predictions]
        for name in served.predictor.task.prediction_types
    }


def judged_table(served: Served, rows: pa.Table) -> Verdicts:
    """Return the verdicts on rows of Arrow."""
    return served.predictor.judge(rows)


def refusal(broken: Broken) -> dict[str, Any]:
    """Return what an answer says of a broken rule: row, column, rule, value and all of it in words."""
    row, value = broken.row, _shown(broken.value)
    if broken.column:
        what = f"{broken.what}: " if broken.what else ""
        is_plain = isinstance(value, str) and not isinstance(broken.value, str)  # words of ours
        has = value if is_plain else json.dumps(value, ensure_ascii=False)
        given = "has no such column" if broken.rule == "missing" else f"has {has}"
        message = f"{broken.reason}: {what}row {row} {given}"
    else:
        message = f"{broken.rule}: row {row} breaks {value}"
    return {"row": row, "column": broken.column, "rule": broken.rule, "value": value, "message": message}


def _shown(value: Any) -> Any:
    """Return a value as an answer repeats it: cut where it is long, in words where JSON has none for it."""
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 10**_MOST_SHOWN else f"a number of {len(hex(value))} hexadecimal digits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return f"an object of {len(value):,} keys"
    if isinstance(value, list):
        is_flat = not any(isinstance(element, list | dict) for element in value)
        return [_shown(element) for element in value] if is_flat and len(value) <= 20 else f"a list of {len(value):,}"
    text = str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"


def to_json(value: Any) -> bytes:
    """Return a JSON text. Numbers that are not finite, which JSON has not, are null; dates and decimals are texts."""
    try:
        return json.dumps(value, allow_nan=False, default=str, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(_finite(value), default=str, separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
