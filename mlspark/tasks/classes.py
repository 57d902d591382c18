"""What binary and multiclass tasks share: classes of the target, other spellings of them, labels in SQL. No Spark."""

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from mlspark.errors import ConfigError
from mlspark.sql_literals import sql_text
from mlspark.tasks.class_metrics import OF_CLASSES
from mlspark.tasks.losses import ClassLoss, CrossEntropyLoss, CustomLoss, key_text
from mlspark.tasks.task import INTEGERS, ClassValue, Column, Seen, Task, is_number

MOST_CLASSES = 10_000
_WORDS = {bool: "booleans", int: "integers", float: "floats", str: "texts"}
_NUMPY_TYPES: dict[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64, str: object}
_SPARK_TYPES = {bool: "boolean", int: "bigint", float: "double", str: "string"}


class ClassTask(Task):
    """A task whose target is one of several classes. A class's id is its place in `classes`."""

    label_fields: ClassVar[frozenset[str]] = frozenset({"kind", "target", "weight", "classes", "aliases"})
    decided_fields: ClassVar[tuple[str, ...]] = ("classes",)
    has_mixtures: ClassVar[bool] = True

    classes: tuple[ClassValue, ...] = ()
    """Values of the target, all of one type; empty: those of the training rows, in ascending order."""
    aliases: dict[str, ClassValue] = {}  # noqa: RUF012 (pydantic copies it)
    """Other spellings of a class: value of the target -> class."""
    loss: ClassLoss = CrossEntropyLoss()

    @field_validator("aliases", mode="before")
    @classmethod
    def _keys_are_texts(cls, value: Any) -> Any:
        return {key_text(key): of for key, of in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _classes_are_consistent(self) -> Self:
        if self.classes:
            _check_classes(self.classes)
        problems = [*self._alias_problems(), *self._weight_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _alias_problems(self) -> list[str]:
        values = self.classes or tuple(self.aliases.values())
        if len({type(value) for value in values}) > 1:
            return ["aliases: classes of different types; write all of them alike"]
        problems = []
        for alias, of in self.aliases.items():
            if self.classes and not is_among(of, self.classes):
                problems.append(f"aliases: {alias}: {of!r} is none of the classes {listed(self.classes)}")
                continue
            value = _parsed(alias, type(of))
            if value is None:
                problems.append(f"aliases: {alias!r} is not written like the {_WORDS[type(of)]} that the classes are")
            elif is_among(value, values if self.classes else ()):
                problems.append(f"aliases: {alias} is a class itself; take it out of aliases or of classes")
        return problems

    def _weight_problems(self) -> list[str]:
        known = [key_text(value) for value in self.classes]
        unknown = [name for name in self.class_weights if known and name not in known]
        return [f"loss.class_weights: {name} is none of the classes {listed(self.classes)}" for name in unknown]

    @property
    def class_weights(self) -> Mapping[str, float]:
        """Class as text -> weight of its rows' loss; classes that are not named weigh 1."""
        return {} if isinstance(self.loss, CustomLoss) else self.loss.class_weights

    def class_weight(self, value: ClassValue) -> float:
        """Return how much the loss of a row of a class counts."""
        return self.class_weights.get(key_text(value), 1.0)

    @property
    def is_resolved(self) -> bool:
        """Whether the classes are known."""
        return bool(self.classes)

    @property
    def known_classes(self) -> tuple[ClassValue, ...]:
        """The classes. Raises ConfigError where they are not known yet."""
        if not self.classes:
            raise ConfigError(
                f"task.classes: not known before the training rows of {self.target} were read; list them to know them now"
            )
        return self.classes

    @property
    def default_metric(self) -> str:
        """See `Task.default_metric`."""
        return "log_loss"

    def has_metric(self, name: str) -> bool:
        """See `Task.has_metric`."""
        return super().has_metric(name) or (not self.classes and name.startswith(OF_CLASSES))

    @property
    def column_names(self) -> tuple[str, ...]:
        """A name for each class that is safe in a column's name; class ids where two classes would share one."""
        names = tuple(column_name(value) for value in self.known_classes)
        return names if not shared_names(names) else tuple(str(place) for place in range(len(names)))

    @property
    def spark_type(self) -> str:
        """Spark type of a class."""
        return _SPARK_TYPES[type(self.known_classes[0])]

    def classes_of(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Return the classes with these ids, in their type."""
        return np.array(self.known_classes, _NUMPY_TYPES[type(self.known_classes[0])])[ids]

    def seen_sql(self, column_type: str) -> dict[str, str]:
        """See `Task.seen_sql`."""
        if self.classes:
            return {}
        if column_type in INTEGERS:
            value = f"CAST(`{self.target}` AS BIGINT)"
        else:
            # A float as it is written: 0.1, not the double 0.10000000149011612.
            text = f"CAST(`{self.target}` AS STRING)" if column_type == "float" else f"`{self.target}`"
            value = f"CAST({text} AS DOUBLE)" if is_number(column_type) else f"`{self.target}`"
        return {"values": f"slice(array_sort(collect_set({value})), 1, {MOST_CLASSES + len(self.aliases) + 1})"}

    def resolved(self, seen: Seen) -> Self:
        """See `Task.resolved`."""
        classes = self.classes or self._classes_of(seen.values)
        try:
            return self._with(classes=classes, **self._decided(classes))
        except ValueError as error:
            raise ConfigError(
                f"task: classes of {self.target} as seen in the training rows: {_first_line(error)}"
            ) from None

    def _decided(self, classes: tuple[ClassValue, ...]) -> dict[str, Any]:
        """Return further settings that the classes decide."""
        return {}

    def _classes_of(self, values: Iterable[Any]) -> tuple[ClassValue, ...]:
        plain = {float(value) if isinstance(value, Decimal) else value for value in values if value is not None}
        finite = {value for value in plain if not isinstance(value, float) or math.isfinite(value)}
        classes = sorted(value for value in finite if key_text(value) not in self._alias_keys(type(value)))
        if len(classes) > MOST_CLASSES:
            raise ConfigError(
                f"task.classes: {self.target} has more than {MOST_CLASSES:,} different values in the training rows; "
                f"list the classes, choose another task.target, or kind: regression"
            )
        if len(classes) < 2:
            raise ConfigError(
                f"task.classes: {self.target} has {len(classes)} different values in the training rows "
                f"({listed(classes) or 'all missing'}); a task needs 2 or more: list them, or choose another task.target"
            )
        return tuple(classes)

    def _alias_keys(self, kind: type) -> set[str]:
        return {key_text(value) for alias in self.aliases if (value := _parsed(alias, kind)) is not None}

    def spellings(self) -> list[list[ClassValue]]:
        """Return for each class its value and its aliases, as values of the target."""
        result: list[list[ClassValue]] = [[value] for value in self.known_classes]
        for alias, of in self.aliases.items():
            value = _parsed(alias, type(of))
            assert value is not None
            result[self.known_classes.index(of)].append(value)
        return result

    def check(self, column: Column) -> list[str]:
        """See `Task.check`."""
        where = f"task.target {column.name}"
        kinds = _kinds(column.type)
        if not kinds:
            return [
                f"{where}: type {column.type}, expected string, boolean or a number, whose values can be classes; "
                f"choose another column, or derive one in the source"
            ]
        values = self.classes or tuple(self.aliases.values())
        if values and type(values[0]) not in kinds:
            setting = "classes" if self.classes else "aliases"
            return [
                f"{where}: task.{setting} {listed(values)} are {_WORDS[type(values[0])]}, but the contract's type is "
                f"{column.type}; write them as {_WORDS[kinds[0]]}"
            ]
        if self.classes and column.type == "string" and not self._allows_only_classes(column):
            return [
                f"{where}: the contract must allow no other values than task.classes and task.aliases, "
                f"it allows {', '.join(map(str, column.allowed)) if column.allowed else 'any'}"
            ]
        return []

    def _allows_only_classes(self, column: Column) -> bool:
        known = {key_text(value) for spellings in self.spellings() for value in spellings}
        return column.allowed is not None and known.issuperset(map(key_text, column.allowed))

    def is_closed_by(self, column: Column) -> bool:
        """See `Task.is_closed_by`."""
        if not self.classes or column.nullable:
            return False
        if column.allowed is not None:
            return self._allows_only_classes(column)
        known = {key_text(value) for spellings in self.spellings() for value in spellings}
        if column.type == "boolean":
            return known == {"false", "true"}
        low, high = column.min, column.max
        if column.type not in INTEGERS or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
            return False
        return high - low < MOST_CLASSES and known.issuperset(map(str, range(math.ceil(low), math.floor(high) + 1)))

    @property
    def _remedy(self) -> str:
        return (
            f"the classes are {listed(self.known_classes)}: name it in task.classes or task.aliases, or close the set "
            f"in the contract (nullable: false, and allowed, or min and max), which quarantines such rows"
        )

    def ids_sql(self, column_type: str, ids: Iterable[int]) -> str:
        """Return SQL of the number of the target's class, one of `ids` for each; null where the value is no class."""
        numbered = [
            (sql_value(value, column_type), str(number))
            for number, spellings in zip(ids, self.spellings(), strict=True)
            for value in spellings
        ]
        literals, numbers = zip(*numbered, strict=True)
        # Not a CASE: of many branches it is compiled to more code than a JVM method may have.
        place = f"array_position(array({', '.join(literals)}), {comparable(self.target, column_type)})"
        return f"get(array({', '.join(numbers)}), CAST({place} - 1 AS INT))"

    def in_sql(self, column_type: str, values: Iterable[ClassValue]) -> str:
        """Return the SQL condition that the target is one of `values`."""
        literals = ", ".join(sql_value(value, column_type) for value in values)
        return f"{comparable(self.target, column_type)} IN ({literals})"


def comparable(column: str, column_type: str) -> str:
    """Return SQL of a column as its classes are compared: integers as bigint, so that none is out of range."""
    if column_type in INTEGERS:
        return f"CAST(`{column}` AS BIGINT)"
    return f"CAST(`{column}` AS DOUBLE)" if column_type.startswith("decimal") else f"`{column}`"


def sql_value(value: ClassValue, column_type: str) -> str:
    """Return the SQL literal of a class, of the type to which `comparable` casts the column."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return sql_text(value)
    sql_type = "BIGINT" if column_type in INTEGERS else "FLOAT" if column_type == "float" else "DOUBLE"
    return f"CAST('{value!r}' AS {sql_type})"


def is_among(value: ClassValue, classes: Iterable[ClassValue]) -> bool:
    """Return whether `value` is one of `classes`, true not being 1."""
    return any(type(value) is type(other) and value == other for other in classes)


def listed(classes: Iterable[Any], most: int = 10) -> str:
    """Return classes as an error names them."""
    values = list(classes)
    return ", ".join(map(repr, values[:most])) + (f" and {len(values) - most:,} more" if len(values) > most else "")


def shared_names(names: Iterable[str]) -> list[str]:
    """Return the names that occur twice; tables do not tell upper case from lower case."""
    folded = [name.casefold() for name in names]
    return sorted({name for name in folded if folded.count(name) > 1}) if len(set(folded)) < len(folded) else []


def column_name(value: ClassValue) -> str:
    """Return a class as part of a column's or metric's name: letters, digits and underscores, of any language."""
    name = re.sub(r"\W", "_", key_text(value))
    return f"{name}_" if name.endswith("_interval") else name


def _check_classes(classes: tuple[ClassValue, ...]) -> None:
    kinds = {type(value) for value in classes}
    if len(kinds) > 1:
        types = ", ".join(sorted(_WORDS[kind] for kind in kinds))
        raise ValueError(f"classes: {listed(classes)} are of different types ({types}); write all of them alike")
    if len(classes) < 2:
        raise ValueError(f"classes: {listed(classes)} is one class; name at least two, or leave classes out")
    if len(classes) > MOST_CLASSES:
        raise ValueError(f"classes: {len(classes):,}, at most {MOST_CLASSES:,}")
    twice = sorted({key_text(value) for value in classes if classes.count(value) > 1})
    if twice:
        raise ValueError(f"classes: {', '.join(twice)}: named twice")
    for value in classes:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"classes: {value!r} is no class: not a finite number")
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise ValueError(f"classes: {value} does not fit in a bigint")


def _parsed(text: str, kind: type) -> ClassValue | None:
    """Return the value of type `kind` that `text` writes; None if it writes none."""
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text)
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        return None


def _kinds(column_type: str) -> tuple[type, ...]:
    """Return the Python types that classes of a contract's type may have."""
    if column_type in INTEGERS:
        return (int,)
    if is_number(column_type):
        return (float, int)
    return {"string": (str,), "boolean": (bool,)}.get(column_type, ())


def _first_line(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    return "; ".join(problem["msg"].removeprefix("Value error, ") for problem in errors()) if errors else str(error)
