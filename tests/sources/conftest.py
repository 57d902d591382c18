"""A small contract of many types, and one way through catalog and contract."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from mlspark.contracts import check_spark, schema_differences
from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import REASONS
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.sources.source import reading

VISITS: dict[str, Any] = {
    "name": "visits",
    "label": "is_new",
    "columns": [
        {"name": "id", "type": "int", "nullable": False},
        {"name": "age", "type": "smallint", "min": 0, "max": 120},
        {"name": "amount", "type": "decimal(6,2)"},
        {"name": "ratio", "type": "double"},
        {"name": "seen", "type": "date"},
        {"name": "at", "type": "timestamp"},
        {"name": "sure", "type": "boolean"},
        {"name": "is_new", "type": "string", "allowed": ["no", "yes"]},
        {"name": "name", "type": "string", "max_length": 50},
    ],
}
ANN = {
    "id": "1", "age": "30", "amount": "1.50", "ratio": "0.5", "seen": "2020-01-31", "at": "2020-01-31 10:00:00",
    "sure": "true", "is_new": "yes", "name": "Ann",
}  # fmt: skip

Outcome = list[tuple[str, list[tuple[str, str, str | None]]]]
"""(raw text, [(column, rule, value)]) of each row, in the order of a small file."""


def visits(**changes: Any) -> Contract:
    return Contract.model_validate_json(json.dumps(VISITS | changes))


def line(separator: str = ",", **changes: str) -> str:
    return separator.join((ANN | changes).values())


def pipeline(folder: Path, learn: dict[str, Any], contract: Contract | None = None) -> Settings:
    """Settings of a pipeline that learns from one source; its contract and YAML file lie in `folder`."""
    (folder / "visits.json").write_text(json.dumps(contracts.to_json(contract or visits())))
    settings = {
        "name": "visits",
        "contract": str(folder / "visits.json"),
        "storage": {"root": str(folder / "home")},
        "sources": {"root": str(folder), "learn": learn},
        "task": {"kind": "binary", "target": "is_new", "classes": ["no", "yes"]},
        "features": {"inputs": [{"kind": "number", "columns": ["age"]}]},
    }
    (folder / "visits.yaml").write_text(yaml.safe_dump(settings))
    return loading.load([str(folder / "visits.yaml")])


def conformed(spark: SparkSession, folder: Path, learn: dict[str, Any], contract: Contract | None = None) -> Outcome:
    """Every row of a source with its reasons, the way prepare goes."""
    settings, contract = pipeline(folder, learn, contract), contract or visits()
    source = catalog.find(spark, settings.sources.learn, root=settings.sources.root)
    columns = catalog.columns(spark, source)
    if columns is not None:
        schema_differences.check(
            check_spark.differences(columns, contract, has_types=catalog.has_types(source)), contract
        )
    rows = check_spark.conform(catalog.read(spark, source, contract), contract)
    with reading(source.uri):
        found = rows.select(check_spark.raw_text(rows), REASONS).collect()
    return [(raw, [tuple(reason) for reason in reasons]) for raw, reasons in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path
