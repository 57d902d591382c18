"""A torch network run as it is, on the CPU. Runs anywhere; needs no Spark."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlspark.engines import pieces, source_code
from mlspark.engines.source_code import SourceCode
from mlspark.errors import RegistryError
from mlspark.features.tensors import Tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mlspark.models.model import Model

REQUIRES: tuple[str, ...] = ("torch", "safetensors")
"""Distributions that this engine needs, besides those that every version needs."""

ROWS_MULTIPLE = 16
"""Rows are run in a multiple of this, the last ones repeated.

Matrix products take the last rows of a batch that fill no block of 4 by another kernel (AMD EPYC, torch 2.12: 181 of 200
rows alone differ in their last bit from the same rows in a batch of 10,000, none in batches of a multiple of 4): without
it a row would be scored differently alone and in a batch, and differently from its evaluation. What stays: a layer of at
most 10 outputs whose inputs are no multiple of 4 treats the first row of each block of 4 unlike the others.

Convolutions choose their kernel by the number of rows, too: rows with pictures are run in blocks of exactly so many.
"""
_ROWS_OF_THREADS = 4096
"""Rows at once without pictures where several threads share them, and wait for each other at every layer."""


def pack(
    settings: "Model",
    tensors: Tensors,
    num_outputs: int,
    weights: "Mapping[str, torch.Tensor]",
    code: SourceCode | None = None,
) -> dict[str, bytes]:
    """Return the files of a trained network: model.json, weights.safetensors and the code of a custom model.

    Args:
        settings: of the model, every one of them: what they leave to a default would change with mlspark.
        tensors: the inputs.
        num_outputs: O.
        weights: the module's state_dict.
        code: of a model of one's own; needed for kind: custom.

    Raises:
        RegistryError: the files do not make a network that takes these weights.
    """
    from mlspark.models import weights as weights_file

    description = {
        "engine": "eager",
        "model": settings.model_dump(mode="json"),
        "tensors": tensors.to_json(),
        "num_outputs": num_outputs,
        "code": None if code is None else code.to_json(),
    }
    files = {
        "model.json": (json.dumps(description, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode(),
        "weights.safetensors": weights_file.to_bytes(weights),
        **({} if code is None else code.files),
    }
    load(files)  # what cannot be loaded here cannot be loaded anywhere
    return files


def load(files: Mapping[str, bytes], *, threads: int = 0) -> "Eager":
    """Return the engine of a version's files.

    Args:
        files: of the version.
        threads: of torch, in the whole process; 0 leaves them as they are.

    Raises:
        RegistryError: the files are not those of one network.
    """
    import torch

    from mlspark.models import weights as weights_file

    if threads:
        torch.set_num_threads(threads)
    description = json.loads(files["model.json"])
    network = _network(files, description)
    try:
        network.load_state_dict(weights_file.from_bytes(files["weights.safetensors"]))
    except RuntimeError as error:
        raise RegistryError(
            f"weights.safetensors: not the weights of the network of model.json ({' '.join(str(error).split())[:500]}); "
            f"register the model anew"
        ) from error
    return Eager(network.eval(), Tensors.from_json(description["tensors"]), description["num_outputs"])


def _network(files: Mapping[str, bytes], description: Mapping[str, Any]) -> "nn.Module":
    from torch import nn

    from mlspark import models

    tensors, num_outputs = Tensors.from_json(description["tensors"]), description["num_outputs"]
    if description["model"]["kind"] != "custom":
        return models.build(models.from_json(description["model"]), tensors, num_outputs)
    if description.get("code") is None:
        raise RegistryError("model.json: a custom model without its code; register the model anew")
    network = source_code.make(files, description["code"], tensors, num_outputs)
    if not isinstance(network, nn.Module):
        raise RegistryError(f"{description['code']['entry']} returned {type(network).__name__}, not a torch.nn.Module")
    return network


class Eager:
    """A network in evaluation mode."""

    def __init__(self, network: "nn.Module", tensors: Tensors, num_outputs: int) -> None:
        self._network, self._tensors, self._num_outputs = network, tensors, num_outputs

    @property
    def network(self) -> "nn.Module":
        return self._network

    @property
    def tensors(self) -> Tensors:
        """What the network reads of a row."""
        return self._tensors

    @property
    def num_outputs(self) -> int:
        """Outputs of a row."""
        return self._num_outputs

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the outputs (n, O) float32 of the encoder's tensors, each (n, ...); it may get more than it reads."""
        import torch

        tensors = self._tensors.pick(tensors)
        num_rows = len(next(iter(tensors.values())))
        if not num_rows:
            return np.empty((0, self._num_outputs), np.float32)
        # Of the same bits, whatever the number of rows: but those of a convolution.
        of_table = pieces.TABLE_ROWS if torch.get_num_threads() == 1 else _ROWS_OF_THREADS
        rows_at_once = ROWS_MULTIPLE if any(value.ndim > 2 for value in tensors.values()) else of_table
        outputs = []
        with torch.inference_mode():
            for start in range(0, num_rows, rows_at_once):
                rows = {
                    name: torch.from_numpy(_padded(value[start : start + rows_at_once]))
                    for name, value in tensors.items()
                }
                outputs.append(self._network(**rows).float().numpy())
        return (np.concatenate(outputs) if len(outputs) > 1 else outputs[0])[:num_rows]


def _padded(values: NDArray[Any]) -> NDArray[Any]:
    """Return rows (n, ...) with the last one repeated, up to a multiple of ROWS_MULTIPLE."""
    num_rows = len(values)
    padding = -num_rows % ROWS_MULTIPLE
    if not padding:
        return values
    padded = np.empty((num_rows + padding, *values.shape[1:]), values.dtype)
    padded[:num_rows], padded[num_rows:] = values, values[-1]
    return padded
