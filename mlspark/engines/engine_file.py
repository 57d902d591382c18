"""Which engine runs a version: engine.json, where it was optimised, else model.json. Runs anywhere.

An optimised version has the files of the model that it was made of, and beside them engine.json with what its engine reads.
"""

import importlib
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from mlspark.errors import RegistryError, one_line

FILE = "engine.json"
"""Name of the file, among those of an optimised version."""


def file_that_names(files: Mapping[str, bytes]) -> str:
    """Return the name of the file that says which engine runs a version."""
    return FILE if FILE in files else "model.json"


def name_of(files: Mapping[str, bytes]) -> str | None:
    """Return the engine's name, None where the files name none."""
    name = json.loads(files[file_that_names(files)]).get("engine")
    return None if name is None else str(name)


def describe(engine: str, distributions: tuple[str, ...], **settings: Any) -> dict[str, bytes]:
    """Return engine.json by its name.

    Args:
        engine: a key of `engine.KINDS`.
        distributions: that made the engine's files; their versions are kept.
        settings: of the engine, JSON values.
    """
    made_with = {name: metadata.version(name) for name in distributions}
    text = json.dumps({"engine": engine, **settings, "made_with": made_with}, indent=1)
    return {FILE: (text + "\n").encode()}


def installed(distribution: str) -> str:
    """Return the version of a distribution, empty where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def words(files: Mapping[str, bytes]) -> str:
    """Return which engine runs a version, with its precision where it has a choice: "openvino int8"."""
    precision = json.loads(files.get(FILE, b"{}")).get("precision", "")
    return f"{name_of(files)} {precision}".strip()


def settings_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what engine.json says."""
    return dict(json.loads(files[FILE]))


def library(name: str, *, engine: str) -> Any:
    """Return the module `name`.

    Raises:
        RegistryError: it is not installed here; names the extra.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise RegistryError(
            f'engine {engine}: {name} is not installed on this machine; pip install "mlspark[engines]", or use the '
            f"version that this one was optimised from"
        ) from error


def file_of(files: Mapping[str, bytes], name: str) -> bytes:
    """Return a file of the engine; raises RegistryError where the version lacks it."""
    if name not in files:
        raise RegistryError(f"{name}: missing in the model version; optimise or register the model anew")
    return files[name]


def in_short(error: Exception) -> str:
    """Return the beginning of what a library says, in one line."""
    return one_line(str(error))[:300]
