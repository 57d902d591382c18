"""What would break where one version takes the place of another: rows refused, other predictions. Runs anywhere."""

from collections.abc import Iterator

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.registry.package import Package
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.task import Task


def breaking(old: Package, new: Package) -> list[str]:
    """Return in words what `new` does not take or give that `old` does; empty where it can take its place.

    Rows that `new` takes besides, and columns that it needs no more, are no difference.
    """
    return [*_of_tasks(old.task, new.task), *_of_contracts(old.input_contract, new.input_contract)]


def _of_tasks(old: Task, new: Task) -> Iterator[str]:
    before = {"target": old.target, "kind": old.kind, "classes": _classes(old), "event": _event(old)}
    after = {"target": new.target, "kind": new.kind, "classes": _classes(new), "event": _event(new)}
    for name, value in before.items():
        if value != after[name]:
            yield f"task.{name} was {_shown(value)}, is {_shown(after[name])}"
    if (types := old.prediction_types) != new.prediction_types:
        yield f"predictions were {_columns(types)}, are {_columns(new.prediction_types)}"


def _classes(task: Task) -> tuple[str, ...]:
    return tuple(map(repr, task.known_classes)) if isinstance(task, ClassTask) else ()


def _event(task: Task) -> str:
    return repr(task.event_class) if isinstance(task, BinaryTask) else ""


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _columns(types: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


def _of_contracts(old: Contract, new: Contract) -> Iterator[str]:
    before = {column.name: column for column in old.columns}
    for column in new.columns:
        if column.name in before:
            yield from _of_columns(before[column.name], column)
        elif new.schema_policy.missing == "refuse":
            yield f"column {column.name} is new"
    kept = {(rule.expression, rule.batch_only) for rule in old.rules}
    for rule in new.rules:
        if (rule.expression, rule.batch_only) not in kept:
            yield f"rule {rule.name} is new"
    for what in ("extra", "missing", "retyped", "reordered"):
        if getattr(new.schema_policy, what) == "refuse" and getattr(old.schema_policy, what) != "refuse":
            yield f"{what} columns are refused now"


def _of_columns(old: ColumnRule, new: ColumnRule) -> Iterator[str]:
    """Yield what values of a column `new` refuses that `old` takes."""
    name = old.name
    if new.source_name != old.source_name:
        yield f"column {name} was called {old.source_name!r}, is called {new.source_name!r}"
    if new.type != old.type:
        yield f"column {name} was {old.type}, is {new.type}"
        return  # bounds of other types cannot be compared
    if old.nullable and not new.nullable:
        yield f"column {name} may not be missing now"
    least, before = new.bound("min"), old.bound("min")
    if least is not None and (before is None or least > before):  # type: ignore[operator]
        yield f"column {name}: min was {old.min}, is {new.min}"
    most, before = new.bound("max"), old.bound("max")
    if most is not None and (before is None or most < before):  # type: ignore[operator]
        yield f"column {name}: max was {old.max}, is {new.max}"
    if new.allowed is not None and (old.allowed is None or not set(old.allowed) <= set(new.allowed)):
        gone = "any" if old.allowed is None else ", ".join(sorted(set(old.allowed) - set(new.allowed)))
        yield f"column {name}: {gone} is not allowed now"
    if (new.min_length or 0) > (old.min_length or 0):
        yield f"column {name}: min_length was {old.min_length}, is {new.min_length}"
    if new.max_length is not None and (old.max_length is None or new.max_length < old.max_length):
        yield f"column {name}: max_length was {old.max_length}, is {new.max_length}"
    for what in ("pattern", "media"):
        if getattr(new, what) not in (None, getattr(old, what)):
            yield f"column {name}: another {what}"
