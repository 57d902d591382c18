"""The kinds of tasks, and reading one back. A new kind is one file and one line here."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from mlspark.errors import ConfigError
from mlspark.tasks.binary import BinaryTask
from mlspark.tasks.multiclass import MulticlassTask
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task

KINDS: dict[str, type[Task]] = {
    "binary": BinaryTask,
    "multiclass": MulticlassTask,
    "regression": RegressionTask,
}

if TYPE_CHECKING:
    TaskSettings = Task
else:
    TaskSettings = Annotated[reduce(or_, KINDS.values()), Field(discriminator="kind")]

_ADAPTER: TypeAdapter[Task] = TypeAdapter(TaskSettings)


def from_json(text: str | bytes) -> Task:
    """Return the task that `Task.to_json` wrote.

    Raises:
        ConfigError: not a task; names what is wrong.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"task: {_problems(error)}") from None


def from_settings(settings: dict[str, Any]) -> Task:
    """Return the task of `settings` written in Python, for notebooks: {"kind": "binary", "target": "income", ...}.

    Raises:
        ConfigError: not a task; names what is wrong.
    """
    try:
        return _ADAPTER.validate_python(settings, strict=False)
    except ValidationError as error:
        raise ConfigError(f"task: {_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    return "; ".join(_words(problem["type"], problem["loc"], problem["msg"]) for problem in error.errors())


def _words(problem: str, place: tuple[int | str, ...], message: str) -> str:
    if problem in ("union_tag_not_found", "union_tag_invalid") and not place:
        return f"kind: must be one of {', '.join(map(repr, KINDS))}"
    where = ".".join(str(part) for part in place)
    return (f"{where}: " if where else "") + message.removeprefix("Value error, ")
