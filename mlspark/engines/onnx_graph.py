"""A torch network as an ONNX graph: any number of rows, inputs called like the encoder's tensors. Runs anywhere."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mlspark.engines import engine_file
from mlspark.engines.eager import Eager
from mlspark.errors import RegistryError
from mlspark.features.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

OUTPUTS = "outputs"
"""Name of the graph's output, (n, O) float32."""
_EXAMPLE_ROWS = 4
_MOST_BYTES = 2**31 - 1
"""Of a protocol buffer."""


def export(engine: Eager) -> bytes:
    """Return the network of an engine as an ONNX file, weights included.

    Raises:
        RegistryError: torch cannot export the network, or it is larger than an ONNX file can be.
    """
    engine_file.library("onnxscript", engine="onnx")
    import torch
    from torch import nn

    network, specs = engine.network, engine.tensors.specs
    names = [spec.name for spec in specs]

    class ByPlace(nn.Module):
        """The network with its tensors by place: not every name can be one of a function's arguments."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.network(**dict(zip(names, values, strict=True)))
            return outputs.float()

    any_rows = tuple({0: torch.export.Dim.DYNAMIC} for _ in specs)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                ByPlace().eval(),
                tuple(_example(spec) for spec in specs),
                dynamo=True,
                input_names=names,
                output_names=[OUTPUTS],
                dynamic_shapes=(any_rows,),
                verbose=False,
            )
        except Exception as error:  # of many kinds: whatever a network of one's own does
            raise RegistryError(f"torch cannot export the network to ONNX: {engine_file.in_short(error)}") from error
    assert program is not None
    proto = program.model_proto
    if proto.ByteSize() > _MOST_BYTES:
        raise RegistryError(f"the network is of {proto.ByteSize():,} bytes, an ONNX file holds {_MOST_BYTES:,} at most")
    return bytes(proto.SerializeToString())


def _example(spec: TensorSpec) -> "torch.Tensor":
    """Return a few rows of a tensor: values decide nothing of the graph."""
    import torch

    return torch.from_numpy(np.zeros((_EXAMPLE_ROWS, *spec.shape), spec.dtype))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says to people who write exporters from those who use one."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
