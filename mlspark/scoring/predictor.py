"""Raw rows in, predictions out: the one way, for batches, MLflow and single rows. Runs anywhere; needs no Spark."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.contracts import check_arrow, check_json
from mlspark.contracts.check_arrow import Broken, Conformed
from mlspark.contracts.check_plain import PlainCheck
from mlspark.contracts.plain_rows import PlainRows, table
from mlspark.engines import engine
from mlspark.errors import ContractError, FeatureError, RegistryError
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.image import other_decoder
from mlspark.features.raw_columns import inputs_of
from mlspark.registry.package import Package


@dataclass(frozen=True)
class Verdicts:
    """What is said of each of n rows: a prediction, or why there is none."""

    conformed: pa.Table | PlainRows
    """All n rows in the contract's types, see `check_arrow.Conformed`."""
    broken: tuple[Broken, ...]
    """Every rule that a row breaks, row by row."""
    good: NDArray[np.intp]
    """Positions of the g rows that break none."""
    predictions: dict[str, NDArray[Any]]
    """Columns of predictions, each (g,), of those rows."""

    @cached_property
    def rows(self) -> pa.Table:
        """`conformed` as a table."""
        return table(self.conformed)


class Predictor:
    """A model version ready to score; its engine is made once."""

    def __init__(self, package: Package, *, allow_decoder: bool = False, threads: int = 0) -> None:
        """Load the engine.

        Args:
            package: the version's files.
            allow_decoder: score pictures even where another decoder is installed than in training, whose pixels may differ.
            threads: that the engine computes with; 0: as it does of itself.

        Raises:
            RegistryError: the version's files are not those of one model, or it was trained on pictures of another decoder.
        """
        if not allow_decoder:
            refuse_other_decoder(package.encoder)
        self.task = package.task
        self.contract = package.input_contract
        self._ignored = package.ignored
        self._plain_check = PlainCheck(self.contract, ignored=self._ignored)
        self._encoder = ArrowEncoder(package.encoder)
        tensors = package.encoder.tensors(package.task)
        self._floats = [each.columns for each in inputs_of(package.encoder, tensors) if each.tensor == "dense"]
        self._engine = engine.load(package.files, threads=threads)

    def predict(self, rows: pa.Table) -> dict[str, NDArray[Any]]:
        """Return the columns of predictions, each (n,), of raw rows; `task.prediction_types` names their types.

        Args:
            rows: columns of `contract`: those of the model's contract without the label, and those that joins gave in
                training.

        Raises:
            ContractError: a row breaks the contract, or the model's output is no number; names column, rule, row and value.
                Nothing is predicted then.
            FeatureError: a picture that the contract lets pass cannot be decoded as the feature asks.
        """
        return self.task.predictions(self.outputs(rows))

    def outputs(self, rows: pa.Table) -> NDArray[Any]:
        """Return the model's outputs (n, O) of raw rows, which predictions are made of; see `predict`."""
        return self._finite(self.encoded(rows), is_counted=True)

    def encoded(self, rows: pa.Table) -> dict[str, NDArray[Any]]:
        """Return the tensors of raw rows by name, each (n, ...); arguments and errors of `predict`."""
        return self._encoder.transform(check_arrow.check(rows, self.contract, ignored=self._ignored))

    def judge(self, rows: pa.Table | Sequence[check_json.Row]) -> Verdicts:
        """Return what `predict` would say of each row alone.

        A picture that cannot be decoded as a feature asks breaks the rule `feature` of its column, a value so far out that
        the model's output is no number breaks the rule `output` of its own.

        Args:
            rows: as `predict` takes them, or rows of JSON.

        Raises:
            ContractError: the columns of a table are not those of the contract.
        """
        if isinstance(rows, pa.Table):
            conformed = check_arrow.conform(rows, self.contract, ignored=self._ignored)
        else:
            if (good := self._plain_check.good(rows)) is not None:
                with suppress(FeatureError):
                    return self._judged(good)
            conformed = check_json.conform(rows, self.contract, ignored=self._ignored)
        try:
            return self._judged(conformed.rows, conformed.broken)
        except FeatureError:
            broken = sorted((*conformed.broken, *self._not_encoded(conformed)), key=lambda broken: broken.row)
            return self._judged(conformed.rows, tuple(broken))

    def _judged(self, rows: pa.Table | PlainRows, broken: tuple[Broken, ...] = ()) -> Verdicts:
        good = np.arange(rows.num_rows)
        if broken:
            good = np.setdiff1d(good, list({each.row for each in broken}))
        tensors = self._encoder.transform(Conformed(table(rows), broken).good if broken else rows)
        outputs = self._engine.run(tensors)
        if refused := self._not_finite(tensors, outputs):
            kept = np.setdiff1d(np.arange(len(outputs)), [each.row for each in refused])
            found = [self._in_rows(each, rows, int(good[each.row])) for each in refused]
            broken = tuple(sorted((*broken, *found), key=lambda each: each.row))
            good, outputs = good[kept], outputs[kept]
        return Verdicts(rows, broken, good, self.task.predictions(outputs))

    def _not_encoded(self, conformed: Conformed) -> list[Broken]:
        """Return what is wrong with good rows that the encoder refuses."""
        bad = {broken.row for broken in conformed.broken}
        refused = []
        for row in range(conformed.rows.num_rows):
            if row in bad:
                continue
            try:
                self._encoder.transform(conformed.rows.slice(row, 1))
            except FeatureError as error:
                column, _, problem = str(error).partition(": row 0: ")
                refused.append(Broken(row, column, "feature", None, problem))
        return refused

    def encoded_from_spark(self, rows: pa.Table) -> dict[str, NDArray[Any]]:
        """Return the tensors by name, each (n, ...), of good rows with `encode_arrow.columns_from_spark`."""
        return self._encoder.transform(rows, is_from_spark=True)

    def predict_encoded(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the columns of predictions of rows that are good and encoded.

        Raises:
            ContractError: the model's output is no number for a row; names its column.
        """
        return self.task.predictions(self._finite(tensors, is_counted=False))

    def _finite(self, tensors: Mapping[str, NDArray[Any]], *, is_counted: bool) -> NDArray[Any]:
        """Return the outputs of rows, all of which are numbers; `is_counted`: the caller knows which row is which."""
        outputs = self._engine.run(tensors)
        if refused := self._not_finite(tensors, outputs):
            first, row = refused[0], f"row {refused[0].row}" if is_counted else "a row"
            raise ContractError(
                f"{first.reason}: {first.what} for {row}, whose feature of this column is {first.value}; leave such rows "
                f"out, or give the column a `min` and a `max` in the contract and train anew"
            )
        return outputs

    def _not_finite(self, tensors: Mapping[str, NDArray[Any]], outputs: NDArray[Any]) -> list[Broken]:
        """Return what is wrong with rows whose outputs are not numbers: the column of the float that is the farthest out."""
        refused = []
        for row in np.flatnonzero(~np.isfinite(outputs).all(axis=1)).tolist():
            what = f"the model's output is {outputs[row][~np.isfinite(outputs[row])][0]}"
            column, value = "", None
            if self._floats:
                place = int(np.abs(tensors["dense"][row]).argmax())
                column, value = self._floats[place][0], float(tensors["dense"][row, place])
            refused.append(Broken(row, column, "output", value, what))
        return refused

    @staticmethod
    def _in_rows(broken: Broken, rows: pa.Table | PlainRows, row: int) -> Broken:
        """Return it with the value of the raw row, which stands at `row`."""
        value = rows.column(broken.column)[row].as_py() if broken.column in rows.column_names else broken.value
        return replace(broken, row=row, value=value)


def refuse_other_decoder(encoder: Encoder) -> None:
    """Raise RegistryError where pictures would be decoded by other libraries than in training; names both."""
    if problem := other_decoder(encoder.images):
        raise RegistryError(
            f"{problem}; install those, or allow it: scoring.allow_decoder=true, where MLflow serves MLSPARK_ALLOW_DECODER=1"
        )
