"""The kinds of engines, by name."""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlspark.engines import engine
from mlspark.errors import RegistryError


class _Sum:
    """Gives the sum of a row's floats, times the number that its file holds."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return self._factor * tensors["dense"].sum(axis=1, keepdims=True)


def summing_module() -> ModuleType:
    """What the file of a new engine holds."""
    module = ModuleType("sum")
    module.__dict__.update(REQUIRES=(), load=lambda files, threads: _Sum(json.loads(files["factor.json"])))
    return module


def test_a_further_engine_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.KINDS, "sum", summing_module())
    files = {"model.json": b'{"engine": "sum"}', "factor.json": b"2.0"}
    outputs = engine.load(files).run({"dense": np.array([[1.0, 2.0], [3.0, 4.0]])})
    assert outputs.tolist() == [[6.0], [14.0]]


def test_an_engine_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        RegistryError, match=r"engine 'sum' is unknown \(known: compiled, eager, ensemble, onnx, openvino, trees\)"
    ):
        engine.load({"model.json": b'{"engine": "sum"}'})
