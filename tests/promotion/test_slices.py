"""The gate on slices: what all rows gain must not be what some of them lose."""

import numpy as np
import pyarrow as pa
import pytest

from mlspark.errors import ConfigError
from mlspark.evaluation.predictions import Predictions
from mlspark.registry import versions
from mlspark.stages import gate_slices, raw_rows
from mlspark.stages.promote import promote

from .conftest import NUM_ROWS, TARGET, Registry, outputs

SLICES = "promotion.slices={columns: [sex, age], max_loss: %s}"


def raw() -> pa.Table:
    """The first 100 rows are of women; ages from 0 to 399; the last 10 rows are no longer in the sources, two others are."""
    ids = np.r_[np.arange(NUM_ROWS - 10), 1000, 1001]
    sex = np.where(ids < 100, "Female", "Male")
    return pa.table({raw_rows.OWN[0]: ids[::-1], "sex": sex[::-1], "age": ids[::-1]})


def test_a_slice_that_loses_keeps_a_version_out_that_gains_over_all(registry: Registry) -> None:
    """Wrong on the last 80 rows, all of men; then on the first 20, all of women: 0.8 for 0.95 and 1 for 0.8."""
    numbers = [registry.add(0), registry.add(1)]
    first = np.where(np.arange(NUM_ROWS) < NUM_ROWS - 80, 1, -1)[:, None] * outputs(0)
    ids = np.arange(NUM_ROWS)
    kept = [Predictions.of(ids, TARGET.astype(float), values) for values in (first, outputs(20))]
    champion, challenger = (
        (versions.find(registry.client, registry.name, number), rows)
        for number, rows in zip(numbers, kept, strict=True)
    )
    strict, loose = registry.set(SLICES % 0.1), registry.set(SLICES % 0.25)
    by_sex, by_age = gate_slices.of_raw_rows(strict, strict.promotion.slices, champion, challenger, raw())  # type: ignore[arg-type]
    assert (by_sex.rule, by_sex.is_met) == ("slices.sex", False)
    assert by_sex.reason == "accuracy by sex: Female loses 0.2000, at most 0.1 may be"
    assert by_sex.figures["losses"]["Male"] == pytest.approx(-70 / 290)
    assert by_age.reason.startswith("accuracy by age: up to ")
    checks = list(gate_slices.of_raw_rows(loose, loose.promotion.slices, champion, challenger, raw()))  # type: ignore[arg-type]
    assert [check.is_met for check in checks] == [True, True]
    assert checks[0].reason == "accuracy by sex: Female loses most, 0.2000, 0.25 may be"


def test_slices_need_spark_and_a_metric_of_the_task(registry: Registry) -> None:
    registry.add(40)
    assert promote(registry.set(SLICES % 0.1))["verdict"] == "promoted"  # there is nothing to lose against
    registry.add(10)
    with pytest.raises(ConfigError, match=r"promotion.slices: needs Spark"):
        promote(registry.set(SLICES % 0.1))
    with pytest.raises(ConfigError, match=r"promotion.slices.metric=rmse: a binary task has no such metric"):
        registry.set("promotion.slices={columns: [sex], max_loss: 0.1, metric: rmse}")
