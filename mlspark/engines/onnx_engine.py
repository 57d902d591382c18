"""A network run by ONNX Runtime on the CPU, in float32. Runs anywhere; needs neither Spark nor torch."""

import json
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from mlspark.engines import engine_file, onnx_graph
from mlspark.engines.engine_file import in_short
from mlspark.engines.pieces import PieceEngine
from mlspark.errors import RegistryError
from mlspark.features.tensors import Tensors

NAME = "onnx"
REQUIRES: tuple[str, ...] = ("onnx", "onnxruntime")
"""Distributions that this engine needs, besides those that every version needs."""
_FILE = "model.onnx"


def pack(graph: bytes) -> dict[str, bytes]:
    """Return the files that have a version run by this engine: engine.json and the network's graph, from `onnx_graph`.

    Raises:
        RegistryError: ONNX Runtime is not installed.
    """
    engine_file.library("onnxruntime", engine=NAME)
    return {**engine_file.describe(NAME, ("torch", "onnx", "onnxscript"), precision="float32"), _FILE: graph}


def load(files: Mapping[str, bytes], *, threads: int = 0) -> "OnnxEngine":
    """Return the engine of an optimised version's files.

    Args:
        files: of the version.
        threads: that compute; 0: as many as the machine has cores.

    Raises:
        RegistryError: the graph is none, or names files outside the version; or ONNX Runtime is not installed.
    """
    onnx, runtime = (engine_file.library(name, engine=NAME) for name in ("onnx", "onnxruntime"))
    content = engine_file.file_of(files, _FILE)
    description = json.loads(files["model.json"])
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:  # protobuf's own
        raise RegistryError(f"{_FILE}: no ONNX graph ({in_short(error)}); optimise the model anew") from error
    if outside := [value.name for value in graph.initializer if value.data_location == onnx.TensorProto.EXTERNAL]:
        raise RegistryError(f"{_FILE}: weights {outside[0]} are in a file outside the version; optimise the model anew")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that wait for work would take the cores of those that have some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own, of many kinds
        raise RegistryError(
            f"{_FILE}: ONNX Runtime {runtime.__version__} does not run it ({in_short(error)}); optimise the model anew"
        ) from error
    return OnnxEngine(session, Tensors.from_json(description["tensors"]), description["num_outputs"])


class OnnxEngine(PieceEngine):
    """A session of ONNX Runtime. A row's outputs depend on those beside it by the last bits only."""

    def __init__(self, session: Any, tensors: Tensors, num_outputs: int) -> None:
        super().__init__(tensors, num_outputs)
        self._session = session
        self._read = {each.name for each in session.get_inputs()}  # a network may leave a tensor aside

    def _piece(self, values: dict[str, NDArray[Any]]) -> NDArray[Any]:
        read = {name: value for name, value in values.items() if name in self._read}
        outputs: NDArray[Any] = self._session.run([onnx_graph.OUTPUTS], read)[0]
        return outputs
