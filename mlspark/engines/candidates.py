"""The engines that a version may be optimised for, by name. Runs anywhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from mlspark.engines import compiled, onnx_engine, onnx_graph, openvino_engine, processor
from mlspark.engines.eager import Eager

Batches = Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Source:
    """A network as it was trained, and what its exports need besides."""

    network: Eager
    calibration: Sequence[Mapping[str, NDArray[Any]]]
    """Batches of rows, for int8."""

    @cached_property
    def graph(self) -> bytes:
        """The network's ONNX graph, exported once; raises RegistryError where torch cannot."""
        return onnx_graph.export(self.network)

    def openvino(self, precision: openvino_engine.Precision) -> dict[str, bytes]:
        """Return the files of OpenVINO's engine."""
        return openvino_engine.pack(self.graph, self.network.tensors, precision, self.calibration)


@dataclass(frozen=True)
class Candidate:
    """An engine with a precision."""

    pack: Callable[[Source], dict[str, bytes]]
    """Gives the engine's files."""
    is_exact: bool
    """Whether its outputs must be eager's within `agreement.TOLERANCE`; else they count by the metric alone."""
    needs_bfloat16: bool = False

    def obstacle(self) -> str:
        """Return why it cannot be used on this machine; empty if nothing is known that speaks against it."""
        if self.needs_bfloat16 and not processor.has_bfloat16():
            return (
                "this processor computes no bfloat16 (no AVX512-BF16): OpenVINO would compute float32, and not say so"
            )
        return ""


CANDIDATES = {
    "compiled": Candidate(lambda _: compiled.pack(), is_exact=True),
    "onnx": Candidate(lambda source: onnx_engine.pack(source.graph), is_exact=True),
    "openvino": Candidate(lambda source: source.openvino("float32"), is_exact=True),
    "openvino bfloat16": Candidate(lambda source: source.openvino("bfloat16"), is_exact=False, needs_bfloat16=True),
    "openvino int8": Candidate(lambda source: source.openvino("int8"), is_exact=False),
}
"""Name that people read -> the engine."""
