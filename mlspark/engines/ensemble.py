"""Several models, each run by its own engine, whose outputs are combined. Runs anywhere; needs no Spark.

The files of a member stand below members/NAME/, as they would alone; model.json says in which order the members come, and
how their outputs are combined.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines.combination import Combination
from mlspark.errors import RegistryError
from mlspark.features.tensors import Tensors

if TYPE_CHECKING:
    from mlspark.engines.engine import Engine
    from mlspark.models.model import Model

REQUIRES: tuple[str, ...] = ()
"""Distributions that this engine needs, besides those of its members' engines."""
_FOLDER = "members/"


def pack(
    settings: "Model",
    tensors: Tensors,
    num_outputs: int,
    combination: Combination,
    members: Mapping[str, Mapping[str, bytes]],
) -> dict[str, bytes]:
    """Return the files of an ensemble: model.json, and those of its members.

    Args:
        settings: of the ensemble, every one of them.
        tensors: the inputs of all members.
        num_outputs: O, of each member, too.
        combination: of the members, in their order.
        members: name -> files of its engine.

    Raises:
        RegistryError: the files of a member are not those of one model.
    """
    description = {
        "engine": "ensemble",
        "model": settings.model_dump(mode="json"),
        "tensors": tensors.to_json(),
        "num_outputs": num_outputs,
        "members": list(members),
        "combination": combination.to_json(),
    }
    files = {"model.json": (json.dumps(description, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()}
    for name, of_member in members.items():
        files |= placed(name, of_member)
    load(files)  # what cannot be loaded here cannot be loaded anywhere
    return files


def load(files: Mapping[str, bytes], *, threads: int = 0) -> "Ensemble":
    """Return the engine of a version's files, each member computing with so many threads.

    Raises:
        RegistryError: the files are not those of an ensemble and its members.
    """
    from mlspark.engines import engine

    description = json.loads(files["model.json"])
    engines = []
    for name, of_member in members(files):
        if "model.json" not in of_member:
            raise RegistryError(f"{_FOLDER}{name}/model.json: missing in the model version; register the model anew")
        engines.append(engine.load(of_member, threads=threads))
    return Ensemble(
        engines, Combination.from_json(description["combination"]), Tensors.from_json(description["tensors"])
    )


def placed(name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a member's files by their names among those of the ensemble."""
    return {f"{_FOLDER}{name}/{file}": content for file, content in files.items()}


def members(files: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the members of a model, in their order, each by its name and with its files; of other engines none."""
    for name in json.loads(files["model.json"]).get("members", ()):
        folder = f"{_FOLDER}{name}/"
        yield name, {file.removeprefix(folder): content for file, content in files.items() if file.startswith(folder)}


class Ensemble:
    """Engines side by side."""

    def __init__(self, engines: "Sequence[Engine]", combination: Combination, tensors: Tensors) -> None:
        self._engines, self._combination, self._tensors = tuple(engines), combination, tensors

    @property
    def engines(self) -> "tuple[Engine, ...]":
        """Those of the members, in their order."""
        return self._engines

    @property
    def combination(self) -> Combination:
        return self._combination

    @property
    def tensors(self) -> Tensors:
        """What some member reads of a row."""
        return self._tensors

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return the outputs (n, O) float64 of the encoder's tensors, each (n, ...); each member takes what it reads."""
        return self._combination.apply([engine.run(tensors) for engine in self._engines])
