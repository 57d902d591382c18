"""A torch network compiled on the machine that runs it, by torch.compile. Runs anywhere with a C++ compiler; no Spark.

The version's files are those of the network and engine.json: what is compiled depends on the processor, so it is compiled
where it is loaded, which takes from seconds to minutes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines import eager, engine_file
from mlspark.engines.eager import Eager
from mlspark.engines.pieces import PieceEngine
from mlspark.errors import RegistryError

NAME = "compiled"
REQUIRES = eager.REQUIRES
"""Distributions that this engine needs, besides those that every version needs."""
_FEWEST_ROWS = 2
"""Torch makes code of its own for one row: a row alone is run twice."""


def pack() -> dict[str, bytes]:
    """Return the file that has a version run by this engine: engine.json."""
    return engine_file.describe(NAME, ("torch",), precision="float32")


def load(files: Mapping[str, bytes], *, threads: int = 0) -> "Compiled":
    """Return the engine of an optimised version's files, compiled.

    Args:
        files: of the version.
        threads: of torch, in the whole process; 0 leaves them as they are.

    Raises:
        RegistryError: the files are not those of a network; or torch cannot compile it here, as without a compiler.
    """
    return Compiled(eager.load(files, threads=threads))


class Compiled(PieceEngine):
    """A compiled network. A row's outputs depend on those beside it by the last bits only."""

    def __init__(self, engine: Eager) -> None:
        """Compile, by running a few rows of zeros.

        Raises:
            RegistryError: torch cannot.
        """
        import torch

        super().__init__(engine.tensors, engine.num_outputs)
        self._network = torch.compile(engine.network, dynamic=True)
        try:
            self.run({spec.name: np.zeros((16, *spec.shape), spec.dtype) for spec in self._tensors.specs})
        except Exception as error:  # of many kinds
            raise RegistryError(
                f"engine {NAME}: torch {torch.__version__} cannot compile the network here ({engine_file.in_short(error)}); "
                f"it needs a C++ compiler; or use the version that this one was optimised from"
            ) from error

    def _piece(self, values: dict[str, NDArray[Any]]) -> NDArray[Any]:
        import torch

        num_rows = len(next(iter(values.values())))
        if num_rows < _FEWEST_ROWS:
            values = {name: np.repeat(value, _FEWEST_ROWS, axis=0) for name, value in values.items()}
        with torch.inference_mode():
            outputs = self._network(**{name: torch.from_numpy(value) for name, value in values.items()})
        return np.asarray(outputs.float().numpy()[:num_rows])
