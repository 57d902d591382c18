"""Settings from YAML files, later ones over earlier ones, then --set; validated once. Driver."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mlspark import credentials
from mlspark.errors import ConfigError
from mlspark.settings import merging, yaml_file
from mlspark.settings.explaining import explain
from mlspark.settings.pipeline import Settings


def load(files: Sequence[str], overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of `files`, each over those before it, and `overrides` ("section.key=value") over all.

    Raises:
        ConfigError: one line naming every wrong key with its file and remedy.
    """
    merged, origin = merging.merged(files, overrides)
    return _validate(_fill_defaults(merged), origin, files)


def override(settings: Settings, values: Mapping[str, Any], *, source: str) -> Settings:
    """Return `settings` with `values` (section.key -> value) over them.

    Raises:
        ConfigError: one line naming every wrong key, with `source` for who set it.
    """
    merged = settings.model_dump(mode="json")
    origin: dict[tuple[str, ...], str] = {}
    for key, value in values.items():
        merging.lay_over(merged, merging.nested(key.split("."), value), origin, source)
    return _validate(merged, origin, [source])


def _validate(merged: Mapping[str, Any], origin: Mapping[tuple[str, ...], str], files: Sequence[str]) -> Settings:
    credentials.refuse(merged)  # before any message that repeats a value
    try:
        # Through JSON, so that strict types still accept a YAML list for a tuple and 1 for 1.0.
        settings = Settings.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        # An item that is refused leaves its list too short in pydantic's eyes.
        places = {problem["loc"][:n] for problem in error.errors() for n in range(len(problem["loc"]))}
        problems = [p for p in error.errors() if p["type"] != "too_short" or p["loc"] not in places]
        raise ConfigError("; ".join(explain(problem, origin, files) for problem in problems)) from None
    if (size := yaml_file.count(settings.model_dump(mode="json"))) > yaml_file.MOST_NODES:
        raise ConfigError(
            f"{', '.join(files)}: {size:,} keys and values with all defaults, more than {yaml_file.MOST_NODES:,}; declare "
            f"columns that are treated alike in one entry of features.inputs"
        )
    return settings


def _fill_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` with what the environment or another setting decides, so that the saved form is complete."""
    filled: dict[str, dict[str, Any]] = {
        "storage": {"root": os.environ.get("MLSPARK_HOME") or ".mlspark"},
        "sources": {"root": os.environ.get("MLSPARK_DATA") or "data"},
        "registry": {"model_name": settings.get("name")},
        "tracking": {"experiment": settings.get("name")},
    }
    complete = dict(settings)
    for section, defaults in filled.items():
        values = settings.get(section, {})
        if isinstance(values, dict):
            complete[section] = {**values, **{key: value for key, value in defaults.items() if not values.get(key)}}
    return complete
