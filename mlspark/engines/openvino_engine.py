"""A network run by OpenVINO on the CPU, in float32, bfloat16 or int8. Runs anywhere; needs neither Spark nor torch."""

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from mlspark.engines import engine_file, processor
from mlspark.engines.engine_file import in_short
from mlspark.engines.pieces import PieceEngine
from mlspark.errors import RegistryError
from mlspark.features.tensors import Tensors

logger = logging.getLogger(__name__)

NAME = "openvino"
REQUIRES: tuple[str, ...] = ("openvino",)
"""Distributions that this engine needs, besides those that every version needs."""
Precision = Literal["float32", "bfloat16", "int8"]
_GRAPH, _WEIGHTS = "openvino.xml", "openvino.bin"
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""Type of what is computed in floats; of int8 those are the layers that are not quantised."""


def pack(
    graph: bytes, tensors: Tensors, precision: Precision, calibration: Sequence[Mapping[str, NDArray[Any]]] = ()
) -> dict[str, bytes]:
    """Return the files that have a version run by this engine: engine.json, the network's graph and its weights.

    Args:
        graph: of the network, from `onnx_graph`.
        tensors: what it reads of a row.
        precision: float32; bfloat16, the same files, computed otherwise; int8.
        calibration: for int8: batches of the encoder's tensors whose ranges decide how floats become integers. The same
            batches give the same files.

    Raises:
        RegistryError: a package is not installed.
    """
    openvino = _library()
    made_with = ["torch", "onnx", "onnxscript", "openvino"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        file.write_bytes(graph)
        model = openvino.Core().read_model(str(file))
        if precision == "int8":
            made_with.append("nncf")
            model = _quantised(model, tensors, calibration)
        openvino.save_model(model, str(Path(folder, _GRAPH)), compress_to_fp16=False)
        files = {name: Path(folder, name).read_bytes() for name in (_GRAPH, _WEIGHTS)}
    rows = {"calibration_rows": _num_rows(calibration)} if precision == "int8" else {}
    return {**engine_file.describe(NAME, tuple(made_with), precision=precision, **rows), **files}


def _library() -> Any:
    """Return OpenVINO, which tells nobody that it is used."""
    # It reports each import over the network, without asking, where it finds this package; where not, it does without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return engine_file.library("openvino", engine=NAME)


def _quantised(model: Any, tensors: Tensors, calibration: Sequence[Mapping[str, NDArray[Any]]]) -> Any:
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use over the network, without asking
    nncf = engine_file.library("nncf", engine=NAME)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    batches = [tensors.pick(batch) for batch in calibration]
    # Weights of seven bits. A processor without VNNI adds pairs of products in 16 bits, which those of eight overflow: the
    # same files gave outputs ten times as far from float32's there. NNCF itself sees to it in the first layer alone.
    options = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    with contextlib.redirect_stdout(io.StringIO()):  # bars of progress
        return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches), advanced_parameters=options)


def _num_rows(calibration: Sequence[Mapping[str, NDArray[Any]]]) -> int:
    return sum(len(next(iter(batch.values()))) for batch in calibration)


def load(files: Mapping[str, bytes], *, threads: int = 0) -> "OpenvinoEngine":
    """Return the engine of an optimised version's files.

    A processor without bfloat16 computes float32, which is what OpenVINO does of itself; that is a warning here.

    Args:
        files: of the version.
        threads: that compute; 0: as many as the machine has cores.

    Raises:
        RegistryError: the graph is none; or OpenVINO is not installed.
    """
    openvino = _library()
    description, precision = json.loads(files["model.json"]), engine_file.settings_of(files)["precision"]
    if precision == "bfloat16" and not processor.has_bfloat16():
        logger.warning(
            "this processor computes no bfloat16: OpenVINO computes float32, with float32's outputs and speed"
        )
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        **({"INFERENCE_NUM_THREADS": str(threads)} if threads else {}),
    }
    graph, weights = engine_file.file_of(files, _GRAPH), engine_file.file_of(files, _WEIGHTS)
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model=graph, weights=weights), "CPU", settings)
    except RuntimeError as error:
        raise RegistryError(
            f"{_GRAPH}: OpenVINO {openvino.__version__} does not run it ({in_short(error)}); optimise the model anew"
        ) from error
    return OpenvinoEngine(compiled, Tensors.from_json(description["tensors"]), description["num_outputs"])


class OpenvinoEngine(PieceEngine):
    """A model compiled by OpenVINO. A row's float32 outputs depend on those beside it by the last bits only."""

    def __init__(self, compiled: Any, tensors: Tensors, num_outputs: int) -> None:
        super().__init__(tensors, num_outputs)
        self._request = compiled.create_infer_request()
        self._read = {name for each in compiled.inputs for name in each.get_names()}

    def _piece(self, values: dict[str, NDArray[Any]]) -> NDArray[Any]:
        read = {name: value for name, value in values.items() if name in self._read}
        self._request.infer(read, share_inputs=True)
        outputs: NDArray[Any] = self._request.get_output_tensor(0).data
        return outputs
