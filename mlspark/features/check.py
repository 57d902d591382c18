"""Features checked against the columns there are, before any data is read. Runs anywhere."""

import difflib
from collections.abc import Mapping

from mlspark.contracts.contract import Contract
from mlspark.errors import FeatureError
from mlspark.features.kinds.kind import Declared
from mlspark.features.settings import FeaturesSettings
from mlspark.tasks.task import Task

_SHOWN = 20
"""Most columns that a message lists."""


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
    try:
        uses = entry.uses
    except FeatureError as error:
        return [str(error)]
    problems = entry.task_problems(task)
    for column, use in uses.items():
        if column not in types:
            problems.append(f"{column}: {not_a_column(column, contract, joined)}")
        elif not types[column].startswith(use.types):
            problems.append(f"{column}: type {types[column]}, expected {use.words}")
        elif column == task.target:
            problems.append(f"{column}: is the label")
        elif column == task.weight:
            problems.append(f"{column}: is the sample weight")
        elif column in rules:
            problems += [f"{column}: {problem}" for problem in entry.column_problems(rules[column])]
    return problems


def not_a_column(name: str, contract: Contract, joined: Mapping[str, str] | None = None) -> str:
    """Return in words that there is no such column, and which one may be meant."""
    known = [*contract.names, *(joined or ())]
    if name in contract.names_by_header:
        return f"is the header of column {contract.names_by_header[name]}; write {contract.names_by_header[name]}"
    missing = f"not a column of contract {contract.name}"
    if close := difflib.get_close_matches(name, known, n=1):
        return f"{missing}, did you mean {close[0]}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{missing} ({', '.join(known[:_SHOWN])}{more})"


def _target_problems(task: Task, contract: Contract) -> list[str]:
    names = [column.name for column in contract.columns]
    if task.target not in names:
        return [f"task.target {task.target}: {not_a_column(str(task.target), contract)}"]
    if contract.label != task.target:
        return [f"task.target {task.target}: the contract's label is {contract.label}"]
    problems = task.check(contract.column(task.target))
    if task.weight is None:
        return problems
    if task.weight not in names:
        return [*problems, f"task.weight {task.weight}: {not_a_column(task.weight, contract)}"]
    return problems + task.check_weight(contract.column(task.weight))
