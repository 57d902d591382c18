"""What breaks where a version takes the place of another: rows that are refused now, predictions that are others."""

from typing import Any

import pytest

from mlspark.contracts.contract import ColumnRule, RowRule, SchemaPolicy
from mlspark.registry.contract_changes import breaking
from mlspark.registry.package import Package

from .example import contract, package


def changed(old: Package, column: str = "", *, task: dict[str, Any] | None = None, **changes: Any) -> Package:
    """The example with another rule for a column, or another contract or task."""
    made = contract()
    if column:
        columns = tuple(
            ColumnRule.model_validate({**rule.model_dump(), **changes}, strict=False) if rule.name == column else rule
            for rule in made.columns
        )
        changes = {"columns": columns}
    return Package.pack(
        model={name: old.files[name] for name in ("model.json", "weights.safetensors")},
        encoder=old.encoder,
        contract=made.model_copy(update=changes),
        task=package(**(task or {})).task,
        provenance=old.provenance,
    )


@pytest.mark.parametrize(
    ("column", "changes", "expected"),
    [
        ("small", {"min": 1}, "column small: min was 0, is 1"),
        ("small", {"min": -1}, ""),
        ("small", {"max": 5}, "column small: max was None, is 5"),
        ("real", {"max": 999.0}, "column real: max was 1000.0, is 999.0"),
        ("real", {"max": None}, ""),
        ("day", {"min": "2000-1-1"}, ""),
        ("day", {"min": "2000-01-02"}, "column day: min was 2000-01-01, is 2000-01-02"),
        ("number", {"nullable": False}, "column number may not be missing now"),
        ("small", {"nullable": True}, ""),
        ("number", {"type": "bigint"}, "column number was int, is bigint"),
        ("number", {"header": "n"}, "column number was called 'number', is called 'n'"),
        ("text", {"allowed": ("red", "green")}, "column text: blue is not allowed now"),
        ("text", {"allowed": ("red", "green", "blue", "grey")}, ""),
        ("text", {"allowed": None}, ""),
        ("text", {"pattern": "[a-z]+"}, "column text: another pattern"),
        ("vector", {"min_length": 1, "max_length": 3}, ""),
        ("vector", {"min_length": 3, "max_length": 3}, "column vector: min_length was 2, is 3"),
        ("vector", {"min_length": 1, "max_length": 1}, "column vector: max_length was 2, is 1"),
        ("", {"rules": ()}, ""),
        ("", {"rules": (*contract().rules, RowRule(name="big", expression="number > 0"))}, "rule big is new"),
        ("", {"schema_policy": SchemaPolicy(extra="refuse")}, "extra columns are refused now"),
        ("", {"schema_policy": SchemaPolicy(missing="ignore")}, ""),
        ("", {"columns": contract().columns[:-1]}, ""),
        ("", {"columns": (*contract().columns, ColumnRule(name="more", type="int"))}, "column more is new"),
        ("", {"task": {"classes": ["no", "perhaps", "yes"], "kind": "multiclass"}}, "task.kind was binary, is multiclass"),
        ("", {"task": {"classes": ["yes", "no"]}}, "task.classes was 'no', 'yes', is 'yes', 'no'; task.event"),
        ("", {"task": {"threshold": 0.4}}, ""),
    ],
)  # fmt: skip
def test_only_what_is_refused_or_predicted_otherwise_breaks(
    column: str, changes: dict[str, Any], expected: str
) -> None:
    old = package()
    found = "; ".join(breaking(old, changed(old, column, **changes)))
    assert found.startswith(expected)
    assert bool(found) == bool(expected), found
