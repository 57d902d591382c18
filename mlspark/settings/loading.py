"""Settings from YAML files, later ones over earlier ones, then --set; validated once. Driver."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mlspark import credentials
from mlspark.errors import ConfigError
from mlspark.section import nested
from mlspark.settings import yaml_file
from mlspark.settings.explaining import explain
from mlspark.settings.pipeline import Settings
from mlspark.settings.yaml_file import MOST_BYTES, MOST_LEVELS, YamlProblem


def load(files: Sequence[str], overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of `files`, each over those before it, and `overrides` ("section.key=value") over all.

    Raises:
        ConfigError: one line naming every wrong key with its file and remedy.
    """
    merged: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}
    for file in files:
        _merge(merged, read(file), origin, file)
    for override in overrides:
        _merge(merged, _parse_override(override), origin, "--set")  # without its value, which may be a secret
    return _validate(_fill_defaults(merged), origin, files)


def override(settings: Settings, values: Mapping[str, Any], *, source: str) -> Settings:
    """Return `settings` with `values` (section.key -> value) over them.

    Raises:
        ConfigError: one line naming every wrong key, with `source` for who set it.
    """
    merged = settings.model_dump(mode="json")
    origin: dict[tuple[str, ...], str] = {}
    for key, value in values.items():
        _merge(merged, nested(key.split("."), value), origin, source)
    return _validate(merged, origin, [source])


def read(file: str, *, option: str = "--config") -> dict[str, Any]:
    """Return what a YAML file holds, as it stands there.

    Raises:
        ConfigError: there is no such file, it does not hold keys with values, or one of them looks like a secret.
    """
    try:
        with open(file, "rb") as stream:
            content = yaml_file.parse(stream.read(MOST_BYTES + 1).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give {option} an existing file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not valid YAML: byte {error.start + 1} is no UTF-8; save the file as UTF-8"
        ) from None
    except YamlProblem as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected sections with keys, got {type(content).__name__}")
    try:
        credentials.refuse(content)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return content


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


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MOST_LEVELS:
        raise ConfigError(f"--set {path[:100]}: expected section.key=value")
    try:
        value = nested(keys, yaml_file.parse(text))
        credentials.refuse(value)
    except YamlProblem as error:
        raise ConfigError(f"--set {path}: not valid YAML: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"--set {error}") from None
    return value


def _merge(
    into: dict[str, Any],
    update: Mapping[str, Any],
    origin: dict[tuple[str, ...], str],
    source: str,
    at: tuple[str, ...] = (),
) -> None:
    """Lay `update` over `into`; sections of one kind merge, all else is replaced. Notes in `origin` who set what."""
    for key, value in update.items():
        path = (*at, str(key))
        origin[path] = source
        if isinstance(value, dict) and isinstance(into.get(key), dict) and _same_kind(into[key], value):
            _merge(into[key], value, origin, source, path)
        else:
            if isinstance(value, dict):
                value = dict(value)
                origin.update(dict.fromkeys(_paths(value, path), source))
            into[key] = value


def _same_kind(section: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
    """Return whether a section may be merged: a source of another kind takes over none of the settings."""
    return bool("kind" not in update or update["kind"] == section.get("kind"))


def _paths(value: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, child in value.items():
        yield (*at, str(key))
        if isinstance(child, dict):
            yield from _paths(child, (*at, str(key)))
