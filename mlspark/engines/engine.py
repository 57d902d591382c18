"""What an engine is, and the kinds of them by name. Runs anywhere; needs no Spark."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from mlspark.engines import compiled, eager, engine_file, ensemble, onnx_engine, openvino_engine, trees
from mlspark.errors import RegistryError


class Engine(Protocol):
    """Computes a model's outputs. It knows neither raw rows nor what the outputs mean."""

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the outputs (n, O), float, of n rows.

        A row's are the same bits whatever rows stand beside it; of the engines that a version is optimised for, within the
        tolerance by which these may differ from eager's.

        Args:
            tensors: the encoder's, by name, each (n, ...).
        """
        ...


class EngineKind(Protocol):
    """A module of this folder."""

    REQUIRES: tuple[str, ...]
    """Distributions that the engine needs, besides those that every version needs; imported inside its functions only."""

    def load(self, files: Mapping[str, bytes], *, threads: int) -> Engine:
        """Return the engine of a version's files, computing with so many threads, 0: as the engine does of itself.

        Raises RegistryError where they are not those of one model, or its library is not installed.
        """
        ...


KINDS: dict[str, EngineKind] = {
    "eager": eager,
    "trees": trees,
    "ensemble": ensemble,
    compiled.NAME: compiled,
    onnx_engine.NAME: onnx_engine,
    openvino_engine.NAME: openvino_engine,
}
"""Engine in model.json, or in engine.json of an optimised version -> its module."""


def kind(files: Mapping[str, bytes]) -> EngineKind:
    """Return the kind of engine that a version's files are for.

    Raises:
        RegistryError: this mlspark has no such engine.
    """
    name = engine_file.name_of(files)
    if name not in KINDS:
        raise RegistryError(
            f"{engine_file.file_that_names(files)}: engine {name!r} is unknown (known: {', '.join(sorted(KINDS))}); use the "
            f"mlspark version that requirements.txt of the model names, or train the model anew"
        )
    return KINDS[name]


def source_kind(files: Mapping[str, bytes]) -> EngineKind:
    """Return the kind of engine that a version was trained with, whatever it was optimised for; raises as `kind`."""
    return kind(_of_source(files))


def load(files: Mapping[str, bytes], *, threads: int = 0) -> Engine:
    """Return the engine of a version's files, ready to run.

    Args:
        files: of the version.
        threads: that it computes with; 0: as the engine does of itself. Torch's are those of the whole process.

    Raises:
        RegistryError: the files are not those of one model of a known engine, or its library is not installed here.
    """
    return kind(files).load(files, threads=threads)


def load_source(files: Mapping[str, bytes], *, threads: int = 0) -> Engine:
    """Return the engine that a version was trained with, whatever it was optimised for: it can be explained. See `load`."""
    return load(_of_source(files), threads=threads)


def _of_source(files: Mapping[str, bytes]) -> dict[str, bytes]:
    # Of an ensemble, its members' too.
    return {name: content for name, content in files.items() if name.rpartition("/")[2] != engine_file.FILE}


def models(files: Mapping[str, bytes]) -> Iterator[Mapping[str, bytes]]:
    """Yield the files of each model that a version holds: of the model itself, and of the members of an ensemble."""
    yield files
    for _, of_member in ensemble.members(files):
        yield from models(of_member)
