"""What all settings have in common: a group of them, their names, functions that they name. Runs anywhere."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from mlspark import credentials
from mlspark.errors import ConfigError


class Section(BaseModel):
    """A group of settings: immutable, unknown keys refused, no silent conversion between types, no secret in any text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,  # neither can be kept as JSON
        hide_input_in_errors=True,  # what is refused may be a secret
    )

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        credentials.refuse(self.__dict__)
        return self


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (section.key, value) of nested settings; of a list of sections (section.0.key, value)."""
    for key, value in settings.items():
        if isinstance(value, list | tuple) and value and all(isinstance(entry, Mapping) for entry in value):
            value = {str(place): entry for place, entry in enumerate(value)}
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def function_at(path: str, setting: str) -> Callable[..., Any]:
    """Return the function at `path`, package.module:function, that `setting` names.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, _, name = path.partition(":")
    try:
        function: Any = importlib.import_module(module_name)
        for part in name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{setting}={path} cannot be imported ({error}); give package.module:function, of a module that is "
            f"installed on every node or found through PYTHONPATH"
        ) from error
    if not callable(function):
        raise ConfigError(f"{setting}={path} is {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]
