"""YAML files laid one over the other, and --set over all, before anything is validated. Runs anywhere, at once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlspark import credentials
from mlspark.errors import ConfigError
from mlspark.settings import yaml_file
from mlspark.settings.yaml_file import MOST_BYTES, MOST_LEVELS, YamlProblem


def merged(files: Sequence[str], overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """Return the values of `files`, each over those before it, and `overrides` over all, and who set which key.

    Raises:
        ConfigError: a file cannot be read or holds no keys with values, or a value looks like a secret.
    """
    values: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}
    for file in files:
        lay_over(values, read(file), origin, file)
    for override in overrides:
        lay_over(values, _parse_override(override), origin, "--set")  # without its value, which may be a secret
    return values, origin


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


def nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return {key: {key: ... value}}."""
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


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


def lay_over(
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
            lay_over(into[key], value, origin, source, path)
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
