"""Features checked against the columns there are, before any data is read. Runs anywhere."""

from collections.abc import Mapping

from mlspark.contracts import headers
from mlspark.contracts.contract import Contract
from mlspark.errors import FeatureError
from mlspark.features.kinds.kind import PICTURE, Declared
from mlspark.features.settings import FeaturesSettings
from mlspark.tasks.task import Task


def check(
    settings: FeaturesSettings,
    task: Task,
    contract: Contract,
    pipeline: str,
    *,
    joined: Mapping[str, str] | None = None,
) -> None:
    """Refuse a task and features that the columns cannot supply.

    Args:
        settings: the features.
        task: says what is predicted.
        contract: of the raw rows.
        pipeline: name, for messages.
        joined: further columns that joins add -> their types.

    Raises:
        FeatureError: names pipeline, feature, column and type.
    """
    problems = _target_problems(task, contract)
    for entry in settings.inputs:
        feature = f"{entry.kind} {', '.join(entry.names)}"
        problems += [f"{feature}: {problem}" for problem in _problems(entry, task, contract, dict(joined or {}))]
    if problems:
        raise FeatureError(f"pipeline {pipeline}: features: " + "; ".join(problems))


def warnings(settings: FeaturesSettings, contract: Contract) -> list[str]:
    """Return what the features ask for that the contract makes useless."""
    rules = {column.name: column for column in contract.columns}
    return [
        f"{entry.kind} {column}: {warning}"
        for entry in settings.inputs
        for column in entry.columns
        if column in rules
        for warning in entry.column_warnings(rules[column])
    ]


def _problems(entry: Declared, task: Task, contract: Contract, joined: dict[str, str]) -> list[str]:
    rules = {column.name: column for column in contract.columns}
    types = {name: rule.type for name, rule in rules.items()} | joined
    expression = getattr(entry, "expression", "")
    if answer := headers.in_expression(expression, contract.names_by_header):
        return [answer]
    try:
        uses = entry.uses
    except FeatureError as error:
        return [str(error)]
    problems = entry.task_problems(task)
    for column, use in uses.items():
        if column not in types:
            problems.append(f"{column}: {contract.no_column(column, more=[*joined])}")
        elif not types[column].startswith(use.types):
            problems.append(f"{column}: type {types[column]}, expected {use.words}")
        elif column == task.target:
            problems.append(f"{column}: is the label")
        elif column == task.weight:
            problems.append(f"{column}: is the sample weight")
        elif column in rules:
            problems += [f"{column}: {problem}" for problem in entry.column_problems(rules[column])]
        elif use is PICTURE:
            problems.append(f"{column}: comes from a join; a picture must be a column of the contract {contract.name}")
    return problems


def _target_problems(task: Task, contract: Contract) -> list[str]:
    names = [column.name for column in contract.columns]
    if task.target not in names:
        return [f"task.target {task.target}: {contract.no_column(str(task.target))}"]
    if contract.label != task.target:
        return [f"task.target {task.target}: the contract's label is {contract.label}"]
    problems = task.check(contract.column(task.target))
    if task.weight is None:
        return problems
    if task.weight not in names:
        return [*problems, f"task.weight {task.weight}: {contract.no_column(task.weight)}"]
    return problems + task.check_weight(contract.column(task.weight))
