"""A small model version, whole, without any training: a column of each type of a contract, random weights."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import torch

from mlspark.contracts.contract import ColumnRule, Contract, RowRule
from mlspark.engines import eager
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.cyclic import Cyclic
from mlspark.features.kinds.index import Indexed
from mlspark.features.kinds.number import Scaled
from mlspark.features.kinds.numbers import NumberStatistics
from mlspark.features.kinds.vector import Vector
from mlspark.models.tabular import TabularSettings
from mlspark.registry.package import Package
from mlspark.tasks import kinds as tasks

BIG = 9007199254740993
"""2**53 + 1: the first whole number that no double holds."""

TASKS: dict[str, dict[str, Any]] = {
    "binary": {"kind": "binary", "target": "label", "classes": ["no", "yes"], "threshold": 0.5},
    "multiclass": {"kind": "multiclass", "target": "label", "classes": ["a", "b", "c"]},
    "regression": {"kind": "regression", "target": "label", "standardise": False},
}

COLUMNS = (
    ColumnRule(name="small", type="smallint", nullable=False, min=0),
    ColumnRule(name="label", type="string"),
    ColumnRule(name="number", type="int"),
    ColumnRule(name="big", type="bigint"),
    ColumnRule(name="single", type="float"),
    ColumnRule(name="real", type="double", max=1000.0),
    ColumnRule(name="text", type="string", allowed=("red", "green", "blue")),
    ColumnRule(name="flag", type="boolean"),
    ColumnRule(name="day", type="date", min="2000-01-01"),
    ColumnRule(name="moment", type="timestamp"),
    ColumnRule(name="amount", type="decimal(10,2)"),
    ColumnRule(name="vector", type="array<float>", min_length=2, max_length=2),
)


def contract(label_type: str = "string") -> Contract:
    """A contract whose label is the second of its columns, with a row rule."""
    columns = tuple(rule.model_copy(update={"type": label_type}) if rule.name == "label" else rule for rule in COLUMNS)
    rules = (RowRule(name="small_is_less", expression="number is missing or small < number + 100"),)
    return Contract(name="example", label="label", columns=columns, rules=rules)


def encoder() -> Encoder:
    statistics = NumberStatistics(count=1, nulls=0, mean=0.0, std=1.0, min=0.0, max=1.0)
    numbers = ("small", "number", "single", "real", "flag", "amount", "events_mean")
    categories = {"text": ("blue", "green", "red"), "big": (str(BIG - 1), str(BIG))}
    features = (
        *(
            Scaled(
                name=name, expression=name, center=1.0, scale=3.0, missing=0.5, indicator=True, statistics=statistics
            )
            for name in numbers
        ),
        *(
            Indexed(name=name, columns=(name,), values=values, counts=(1,) * len(values), nulls=0, rare=0)
            for name, values in categories.items()
        ),
        Cyclic(name="day", column="day", parts=("day_of_week", "month")),
        Cyclic(name="moment", column="moment", parts=("hour",)),
        Vector(name="vector", column="vector", size=2, indicator=False),
    )
    types = {rule.name: rule.type for rule in COLUMNS if rule.name != "label"} | {"events_mean": "double"}
    return Encoder(pipeline="example", rows=1, inputs=types, features=features)


def package(kind: str = "binary", *, joined: bool = True, **task: Any) -> Package:
    """A version with random weights, the same each time.

    Args:
        kind: of the task.
        joined: whether a feature uses a column that joins give.
        task: further settings of the task.
    """
    resolved = tasks.from_settings(TASKS[kind] | task)
    fitted = encoder()
    if not joined:
        inputs = {name: kind for name, kind in fitted.inputs.items() if name != "events_mean"}
        features = tuple(feature for feature in fitted.features if feature.name != "events_mean")
        fitted = fitted.model_copy(update={"features": features, "inputs": inputs})
    settings = TabularSettings(hidden=(16,))
    tensors = fitted.tensors(resolved)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        weights = settings.build(tensors, resolved.num_outputs).state_dict()
    return Package.pack(
        model=eager.pack(settings, tensors, resolved.num_outputs, weights),
        encoder=fitted,
        contract=contract("double" if kind == "regression" else "string"),
        task=resolved,
        provenance={
            "run_id": "none",
            "table": "example",
            "table_version": 3,
            "git_commit": "c0ffee",
            "git_is_changed": True,
            "metrics": {"test": METRICS} if kind == "binary" else {},
            "steps": 24,
            "train_seconds": 1.5,
            "libraries": {"mlspark": "0.1.0"},
        },
    )


METRICS = {
    "num_rows": 600,
    "accuracy": 0.85,
    "accuracy_interval": [0.82, 0.88],
    "roc_auc": None,
    "roc_auc_interval": None,
}
"""Metrics of test rows, one of them not defined."""

ROW: dict[str, Any] = {
    "small": 5,
    "number": 39,
    "big": BIG,
    "single": 0.25,
    "real": 1.5,
    "text": "red",
    "flag": True,
    "day": date(2024, 2, 29),
    "moment": datetime(2024, 2, 29, 18, 30, 1, tzinfo=UTC),
    "amount": Decimal("12.34"),
    "vector": [0.5, -1.0],
    "events_mean": 2.5,
}


def rows(*changes: dict[str, Any]) -> pa.Table:
    """Rows in the contract's own types, each like ROW but for some values."""
    types = {
        "small": pa.int16(),
        "number": pa.int32(),
        "big": pa.int64(),
        "single": pa.float32(),
        "real": pa.float64(),
        "text": pa.string(),
        "flag": pa.bool_(),
        "day": pa.date32(),
        "moment": pa.timestamp("us", "UTC"),
        "amount": pa.decimal128(10, 2),
        "vector": pa.list_(pa.float32()),
        "events_mean": pa.float64(),
    }
    return pa.Table.from_pylist([ROW | change for change in changes or ({},)], schema=pa.schema(types))
