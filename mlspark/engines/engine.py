"""What an engine is, and the kinds of them by name. Runs anywhere; needs no Spark."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from mlspark.engines import eager, ensemble, trees
from mlspark.errors import RegistryError


class Engine(Protocol):
    """Computes a model's outputs. It knows neither raw rows nor what the outputs mean."""

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the outputs (n, O), float, of n rows; a row's are the same bits whatever rows stand beside it.

        Args:
            tensors: the encoder's, by name, each (n, ...).
        """
        ...


class EngineKind(Protocol):
    """A module of this folder."""

    REQUIRES: tuple[str, ...]
    """Distributions that the engine needs, besides those that every version needs; imported inside its functions only."""

    def load(self, files: Mapping[str, bytes]) -> Engine:
        """Return the engine of a version's files; raises RegistryError where they are not those of one model."""
        ...


KINDS: dict[str, EngineKind] = {
    "eager": eager,
    "trees": trees,
    "ensemble": ensemble,
}
"""Engine in model.json -> its module."""


def kind(files: Mapping[str, bytes]) -> EngineKind:
    """Return the kind of engine that a version's files are for.

    Raises:
        RegistryError: this mlspark has no such engine.
    """
    name = json.loads(files["model.json"]).get("engine")
    if name not in KINDS:
        raise RegistryError(
            f"model.json: engine {name!r} is unknown (known: {', '.join(sorted(KINDS))}); use the mlspark version that "
            f"requirements.txt of the model names, or train the model anew"
        )
    return KINDS[name]


def load(files: Mapping[str, bytes]) -> Engine:
    """Return the engine of a version's files, ready to run.

    Raises:
        RegistryError: the files are not those of one model of a known engine.
    """
    return kind(files).load(files)


def models(files: Mapping[str, bytes]) -> Iterator[Mapping[str, bytes]]:
    """Yield the files of each model that a version holds: of the model itself, and of the members of an ensemble."""
    yield files
    for _, of_member in ensemble.members(files):
        yield from models(of_member)
