"""Engines that a network is exported to: eager's outputs, for any number of rows, and refusals of what is none."""

import contextlib
import functools
import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from torch import nn

from mlspark.engines import compiled, eager, engine, onnx_graph, openvino_engine, processor
from mlspark.engines.agreement import TOLERANCE, difference
from mlspark.engines.candidates import CANDIDATES, Source
from mlspark.engines.eager import Eager
from mlspark.errors import RegistryError
from mlspark.features.tensors import Tensors
from mlspark.models.cnn import CnnSettings
from mlspark.models.model import Model
from mlspark.models.softmax import SoftmaxSettings
from mlspark.models.tabm import TabmSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.vision import VisionSettings

from ..conftest import ROOT
from ..models.test_vision import LEAST
from .networks import DENSE, IDS, NUM_OUTPUTS, files, photo, rounding, rows

ROW, PHOTO = Tensors((DENSE, IDS)), photo(8)
NETWORKS: dict[str, tuple[Model, Tensors]] = {
    "tabular": (TabularSettings(hidden=(32,)), ROW),
    "tabm": (TabmSettings(hidden=(32,), members=4), ROW),
    "softmax": (SoftmaxSettings(), Tensors((DENSE, PHOTO))),
    "cnn": (CnnSettings(widths=(8,), test_time=("flip",)), Tensors((DENSE, PHOTO))),
    "resnet20": (VisionSettings(backbone="resnet20"), Tensors((DENSE, IDS, PHOTO, photo(6, "items")))),
}
SLOW = {"tabm", "softmax", "resnet20"}
# Over a piece's rows, so that there are several; and rows alone.
COUNTS = (1, 7, 70, 4096)


def exports(network: Eager) -> dict[str, dict[str, bytes]]:
    """The files of the engines that a network is exported to, all of one graph."""
    source = Source(network, ())
    return {name: CANDIDATES[name].pack(source) for name in ("onnx", "openvino")}


@functools.cache
def tabular() -> tuple[dict[str, bytes], dict[str, dict[str, bytes]]]:
    """The files of a network, and of its exports."""
    packed = files(*NETWORKS["tabular"])
    return packed, exports(eager.load(packed))


def assert_equals_eager(
    packed: dict[str, bytes], tensors: Tensors, made: dict[str, bytes], *, limit: float = TOLERANCE
) -> None:
    values = rows(max(COUNTS) + 5 if not tensors.pictures else 75, tensors)
    expected = eager.load(packed).run(values)
    assert np.abs(expected).max() > 0.01
    exported = engine.load({**packed, **made}, threads=1)
    for count in (*COUNTS, len(expected)):
        outputs = exported.run({name: value[:count] for name, value in values.items()})
        assert (outputs.dtype, outputs.shape) == (np.float32, expected[:count].shape)
        assert difference(outputs, expected[:count]) < limit
    assert exported.run({name: value[:0] for name, value in values.items()}).shape == (0, NUM_OUTPUTS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NETWORKS]
)
def test_exported_networks_give_eagers_outputs_for_any_number_of_rows(name: str) -> None:
    settings, tensors = NETWORKS[name]
    packed = files(settings, tensors)
    for made in exports(eager.load(packed)).values():
        assert_equals_eager(packed, tensors, made)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAST)
def test_every_family_of_networks_gives_eagers_outputs(name: str) -> None:
    settings, tensors = VisionSettings(backbone=name), Tensors((DENSE, IDS, photo(max(32, LEAST[name]))))
    packed = files(settings, tensors)
    # Inception-v4 of random weights is off by 1e-3 in float32 as it is; others by 1e-5 at most, and the tolerance counts.
    limit = max(TOLERANCE, 10 * rounding(packed, rows(16, tensors)))
    for made in exports(eager.load(packed)).values():
        assert_equals_eager(packed, tensors, made, limit=limit)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("softmax", "tabular", "resnet20")]
)
def test_compiled_networks_give_eagers_outputs_for_any_number_of_rows(name: str) -> None:
    settings, tensors = NETWORKS[name]
    packed = files(settings, tensors)
    assert_equals_eager(packed, tensors, compiled.pack())


def test_inputs_are_called_like_the_encoders_tensors() -> None:
    tensors = Tensors((DENSE, PHOTO, photo(6, "items")))  # a name that torch's ModuleDict has a method of
    made = exports(eager.load(files(CnnSettings(widths=(8,)), tensors)))
    session = onnxruntime.InferenceSession(made["onnx"]["model.onnx"])
    names = ["dense", "photo", "items"]
    assert [each.name for each in session.get_inputs()] == names
    assert [list(each.shape[1:]) for each in session.get_inputs()] == [[3], [3, 8, 8], [3, 6, 6]]
    assert {type(each.shape[0]) for each in session.get_inputs()} == {str}  # a name: any number
    of_openvino = made["openvino"]
    model = openvino.Core().read_model(model=of_openvino["openvino.xml"], weights=of_openvino["openvino.bin"])
    assert [each.get_any_name() for each in model.inputs] == names
    assert all(each.get_partial_shape()[0].is_dynamic for each in model.inputs)


def test_int8_is_decided_by_the_calibration_rows_alone_and_is_near_eager() -> None:
    tensors = Tensors((DENSE, PHOTO))
    packed = files(CnnSettings(widths=(32, 64)), tensors)
    network, calibration = eager.load(packed), [rows(32, tensors, seed=seed) for seed in (1, 2)]
    graph = onnx_graph.export(network)
    made, again, other = (
        openvino_engine.pack(graph, tensors, "int8", batches) for batches in (calibration, calibration, calibration[:1])
    )
    assert made["openvino.bin"] == again["openvino.bin"] != other["openvino.bin"]
    settings = json.loads(made["engine.json"])
    assert (settings["precision"], settings["calibration_rows"]) == ("int8", 64)
    assert b"FakeQuantize" in made["openvino.xml"]
    assert len(made["openvino.bin"]) < len(packed["weights.safetensors"]) / 2
    values = rows(64, tensors)
    expected = network.run(values)
    outputs = engine.load({**packed, **made}, threads=1).run(values)
    spread = float(expected.std(axis=0).max())
    assert 0 < float(np.abs(outputs - expected).mean()) < 0.05 * spread  # also without VNNI, where sums may overflow


def test_a_processor_without_bfloat16_says_that_float32_is_computed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packed, both = tabular()
    description = json.loads(both["openvino"]["engine.json"]) | {"precision": "bfloat16"}
    made = both["openvino"] | {"engine.json": json.dumps(description).encode()}
    for flags, is_said in ((frozenset({"avx2", "fma"}), True), (frozenset({"avx512_bf16"}), False)):
        monkeypatch.setattr(processor, "flags", lambda flags=flags: flags)
        with caplog.at_level(logging.WARNING):
            engine.load({**packed, **made})
        assert ("this processor computes no bfloat16" in caplog.text) == is_said
        caplog.clear()


def test_what_is_no_graph_or_is_missing_is_named() -> None:
    packed, made = tabular()
    for name, file in (("onnx", "model.onnx"), ("openvino", "openvino.xml")):
        with pytest.raises(RegistryError, match=rf"{file}: .*optimise the model anew"):
            engine.load({**packed, **made[name], file: b"rubbish"})
        without = {key: content for key, content in made[name].items() if key != file}
        with pytest.raises(RegistryError, match=f"{file}: missing in the model version"):
            engine.load({**packed, **without})
    with pytest.raises(RegistryError, match=r"engine\.json: engine 'other' is unknown"):
        engine.load({**packed, "engine.json": b'{"engine": "other"}'})


def test_weights_in_files_outside_the_version_are_refused() -> None:
    packed, both = tabular()
    made = both["onnx"]
    model = onnx.load(io.BytesIO(made["model.onnx"]))
    weights = max(model.graph.initializer, key=lambda value: len(value.raw_data))
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../secrets.bin")
    with pytest.raises(RegistryError, match=r"are in a file outside the version"):
        engine.load({**packed, **made, "model.onnx": model.SerializeToString()})


@pytest.mark.parametrize(("name", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_machine_without_the_engine_is_told_which_extra_has_it(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, both = tabular()
    made = both[name]
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it of what is not installed
    with pytest.raises(RegistryError, match=rf'{module} is not installed .* pip install "mlspark\[engines\]"'):
        engine.load({**packed, **made})


def test_a_network_that_cannot_be_exported_is_refused_with_torchs_words() -> None:
    class Deciding(nn.Module):
        def forward(self, dense: Any) -> Any:
            return dense if float(dense.sum()) > 0 else -dense

    with pytest.raises(RegistryError, match="torch cannot export the network to ONNX: "):
        onnx_graph.export(Eager(Deciding(), Tensors((DENSE,)), 3))


OF_EXPORTS = """
import sys
import threading
from mlspark.engines import eager
from mlspark.engines.candidates import Source
from mlspark.features.tensors import Tensors
from mlspark.models.tabular import TabularSettings
from tests.engines.networks import DENSE, files, rows
settings, tensors = TabularSettings(hidden=(8,)), Tensors((DENSE,))
Source(eager.load(files(settings, tensors)), [rows(16, tensors)]).openvino("int8")
from nncf.telemetry import wrapper
assert "pytest" not in sys.modules
assert not isinstance(wrapper.telemetry, wrapper.NNCFTelemetry)
"""
OF_IMPORTS = "from mlspark.engines import openvino_engine; openvino_engine._library().Core()"


@pytest.mark.parametrize(
    "code", [pytest.param(OF_IMPORTS, id="import"), pytest.param(OF_EXPORTS, id="export", marks=pytest.mark.slow)]
)
def test_nobody_is_told(tmp_path: Path, code: str) -> None:
    """OpenVINO reports each import, its converter and NNCF their use, unless told not to, or where pytest is imported."""
    asked = []

    def refuse() -> None:
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                connection, _ = proxy.accept()
                with connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        threading.Thread(target=refuse, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = {**os.environ, "HOME": str(tmp_path), "https_proxy": address, "http_proxy": address}
        environment.pop("NNCF_CI", None)
        # Reports are sent by a process beside, so this one must not end at once.
        subprocess.run(
            [sys.executable, "-c", f"{code}\nimport time; time.sleep(3)"],
            cwd=ROOT, env=environment, check=True, timeout=600,
        )  # fmt: skip
    assert asked == []
    assert not (tmp_path / "intel" / "openvino_ga_cid").exists()
