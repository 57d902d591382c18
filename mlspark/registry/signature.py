"""What MLflow is to know of a version's columns. Driver only."""

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array

from mlspark.registry.package import Package

_OUTPUTS = {
    "string": DataType.string,
    "boolean": DataType.boolean,
    "smallint": DataType.integer,
    "int": DataType.integer,
    "bigint": DataType.long,
    "float": DataType.float,
    "double": DataType.double,
    "date": DataType.datetime,
    "timestamp": DataType.datetime,
}


def of(package: Package) -> ModelSignature:
    """Return the signature of a version: names, those of the sources, and order of the columns; types of the predictions.

    It says which columns may be left out, too.
    The inputs' types are left to the contract, which checks each row of every call. MLflow's own types would refuse what
    the contract accepts and change what it refuses: "long" refuses 1.0 and a nullable column with a gap, "double"
    refuses a boolean and takes big integers through a float, "string" refuses a category, "boolean" accepts "true".
    MLflow drops columns that a signature does not name; where the contract refuses them there are no inputs in it.
    """
    contract = package.input_contract
    may_be_missing = contract.schema_policy.missing == "ignore"
    any_type = AnyType()  # type: ignore[no-untyped-call]
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(any_type, column.source_name, required=not may_be_missing) for column in contract.columns
    ]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(_output(kind), name) for name, kind in package.task.prediction_types.items()
    ]
    refuses_others = contract.schema_policy.extra == "refuse"
    return ModelSignature(inputs=None if refuses_others else Schema(inputs), outputs=Schema(outputs))


def _output(kind: str) -> DataType | Array:
    if kind.startswith("array<"):
        return Array(_OUTPUTS[kind.removeprefix("array<").removesuffix(">")])
    return _OUTPUTS.get(kind, DataType.string)
