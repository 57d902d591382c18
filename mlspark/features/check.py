"""Features checked against the columns there are, before any data is read. Runs anywhere."""

from collections.abc import Mapping

from mlspark.contracts.contract import Contract
from mlspark.errors import FeatureError
from mlspark.feature_settings import FeaturesSettings, VectorFeature
from mlspark.features.fit import columns_of

_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "boolean", "decimal")
_TYPES = {
    "number": (_NUMBERS, "a number or boolean"),
    "category": (
        ("string", "tinyint", "smallint", "int", "bigint", "boolean", "date"),
        "text, a whole number, boolean or date",
    ),
    "text": (("string",), "text"),
    "time": (("date", "timestamp"), "a date or timestamp"),
    "vector": (("array",), "an array"),
}


def check(
    settings: FeaturesSettings, contract: Contract, pipeline: str, *, joined: Mapping[str, str] | None = None
) -> None:
    """Refuse features that the columns cannot give.

    Args:
        settings: the features.
        contract: of the raw rows.
        pipeline: name, for messages.
        joined: further columns that joins give -> their types.

    Raises:
        FeatureError: names pipeline, feature, column and type.
    """
    types = {column.name: column.type for column in contract.columns} | dict(joined or {})
    problems = _label_problems(settings, contract)
    for entry in settings.inputs:
        feature = f"{entry.kind} {', '.join(entry.names)}"
        try:
            columns = columns_of(entry)
        except FeatureError as error:
            problems.append(f"{feature}: {error}")
            continue
        for column, use in columns.items():
            accepted, words = _TYPES[use]
            if column not in types:
                problems.append(f"{feature}: {column}: not a column of contract {contract.name} ({', '.join(types)})")
            elif not types[column].startswith(accepted):
                problems.append(f"{feature}: {column}: type {types[column]}, expected {words}")
            elif column == settings.label.column:
                problems.append(f"{feature}: {column}: is the label")
            elif isinstance(entry, VectorFeature) and column in [each.name for each in contract.columns]:
                rule = contract.column(column)
                if not rule.min_length == rule.max_length == entry.size:
                    problems.append(
                        f"{feature}: {column}: the contract must give it min_length and max_length {entry.size}, "
                        f"it gives {rule.min_length} and {rule.max_length}"
                    )
    if problems:
        raise FeatureError(f"pipeline {pipeline}: features: " + "; ".join(problems))


def _label_problems(settings: FeaturesSettings, contract: Contract) -> list[str]:
    column, names = settings.label.column, [column.name for column in contract.columns]
    if column not in names:
        return [f"label {column}: not a column of contract {contract.name} ({', '.join(names)})"]
    if contract.label != column:
        return [f"label {column}: the contract's label is {contract.label}"]
    if contract.column(column).type != "string":
        return [f"label {column}: type {contract.column(column).type}, expected string"]
    allowed = contract.column(column).allowed
    if allowed is None or not {*settings.label.positive, *settings.label.negative}.issuperset(allowed):
        return [
            f"label {column}: the contract must allow no other values than label.positive and label.negative, "
            f"it allows {', '.join(allowed) if allowed else 'any'}"
        ]
    return []
