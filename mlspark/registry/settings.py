"""Where model versions are registered. Runs anywhere."""

import re
from typing import Annotated

from pydantic import AfterValidator, ValidationError

from mlspark.errors import RegistryError
from mlspark.section import Section

_MODEL_NAME = re.compile(r"\w(?:[\w .-]{0,253}[\w-])?")
_ALIAS = re.compile(r"[\w-]{1,255}")
_VERSIONS = re.compile(r"latest|v?[0-9]+", re.IGNORECASE)


def _model_name(name: str) -> str:
    """Return `name`, which MLflow takes and finds again: its filters know no quotes, its URIs no / : ? #."""
    if name and not _MODEL_NAME.fullmatch(name):
        raise ValueError(
            f"{_short(name)} names no registered model; give letters, digits, _ - . and spaces between them"
        )
    return name


def alias_name(alias: str) -> str:
    """Return `alias`, which MLflow takes and which nobody mistakes for a version's number."""
    if alias and (not _ALIAS.fullmatch(alias) or _VERSIONS.fullmatch(alias)):
        raise ValueError(
            f"{_short(alias)} is no alias; give letters, digits, _ and -, but not latest, v1 or 1: versions"
        )
    return alias


def _short(text: str) -> str:
    return repr(text) if len(text) <= 255 else f"{text[:20]!r}... of {len(text)} characters (255 at most)"


class RegistrySettings(Section):
    model_name: Annotated[str, AfterValidator(_model_name)] = ""
    """Name of the registered model; empty: the pipeline's name."""
    alias: Annotated[str, AfterValidator(alias_name)] = "challenger"
    """Alias that is moved to the new version; empty: no alias is. `mlspark promote` makes it the champion, or does not."""
    evaluation_page: bool = True
    """Whether the run gets evaluation.html: figures, curves and the worst mistakes of the new version, pictures included."""


def check_names(name: str, alias: str) -> None:
    """Refuse a name or alias that the settings of a pipeline could not have.

    Raises:
        RegistryError: says what is wrong with it.
    """
    if not name:
        raise RegistryError("name: '' names no registered model; give one")
    try:
        RegistrySettings(model_name=name, alias=alias)
    except ValidationError as error:
        raise RegistryError(
            "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        ) from None
