"""Steps that are recorded and replayed: what is recorded, how it is checked, and that the run is the one without.

A CUDA graph needs a GPU. On CPUs `Again` takes its place, which on replay computes anew into the tensors of the recording,
as a graph does; all else is what runs on a GPU.
"""

import contextlib
import functools
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlspark import models, storage
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.cnn import CnnSettings
from mlspark.models.custom import CustomSettings
from mlspark.models.model import Model
from mlspark.models.tabm import TabmSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.vision import VisionSettings
from mlspark.pictures.spec import PictureSpec
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks import losses as losses_module
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.task import Task
from mlspark.training import graph
from mlspark.training.settings import OptimizerSettings
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec

from . import networks
from .conftest import TASK, TENSORS, binary_task, fit_here, new_run
from .test_resume import CUSTOM, assert_equal, cross_entropy, run_of, stop_at

CPU, GPU = torch.device("cpu"), torch.device("cuda")
STEP: dict[str, Any] = {
    "compute": lambda batch: batch["row_id"],
    "model": nn.Linear(1, 1),
    "seed": lambda number: None,
}
"""A step of which nothing is asked here."""
UNFROZEN = {"freeze": ("layers.0",), "unfreeze": {2: ("layers.0",)}}


class NothingIsRead(TorchDispatchMode):
    """Fails where a computation asks for a tensor's value or copies one to a GPU: no graph can be recorded of it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        aten = torch.ops.aten
        assert func.overloadpacket not in (aten._local_scalar_dense, aten.nonzero, aten.masked_select), func
        leaves = tree_leaves((args, kwargs))
        assert len({leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor)}) < 2, f"{func} copies to a GPU"
        return func(*args, **(kwargs or {}))


class Again:
    """Records by computing; replays by computing again into the same tensors, which `spoil` may change then."""

    def __init__(self, model: nn.Module, spoil: Callable[[list[torch.Tensor]], None] = lambda gradients: None) -> None:
        self.model, self.spoil, self.replays, self.missing = model, spoil, 0, ""

    def aside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        parameters = list(self.model.parameters())
        with NothingIsRead():
            counts = compute()
        kept = [parameter.grad for parameter in parameters]

        def replay() -> None:
            self.replays += 1
            for parameter in parameters:
                parameter.grad = None
            counts.copy_(compute())
            for parameter, gradient in zip(parameters, kept, strict=True):
                assert (parameter.grad is None) == (gradient is None)
                if gradient is not None:
                    assert parameter.grad is not None
                    gradient.copy_(parameter.grad)
                parameter.grad = gradient
            self.spoil([gradient for gradient in kept if gradient is not None])

        return counts, replay

    def shortage(self) -> str:
        return self.missing


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Again]:
    """Have runs on the CPU record their steps, each by the next of the list, or one that is added to it."""
    made: list[Again] = []

    def on_cpu(spec: TrainingSpec, functions: Functions, world_size: int, device: torch.device, **step: Any) -> Any:
        model = step["model"]
        if not made:
            made.append(Again(model))
        made[-1].model = model
        monkeypatch.setattr(graph, "GpuRecorder", lambda model: made[-1])
        with monkeypatch.context() as patch:  # a model of a test's own is recorded, too
            patch.setattr(graph, "refusal", lambda *_: "")
            return graph.graph_of(spec, functions, world_size, GPU, **step)

    monkeypatch.setattr("mlspark.training.step.graph_of", on_cpu)
    return made


@pytest.mark.parametrize(
    ("settings", "functions", "world_size", "reason"),
    [
        ({}, NO_FUNCTIONS, 1, ""),
        ({"precision": "bf16", "compile": True, "ema_decay": 0.9, "accumulation_steps": 3}, NO_FUNCTIONS, 1, ""),
        ({"optimizer": OptimizerSettings(kind="lamb", clip_norm=1.0), "memory_bytes": 2**20}, NO_FUNCTIONS, 1, ""),
        ({"freeze": ("layers.0",)}, NO_FUNCTIONS, 1, ""),
        ({"shard": True}, NO_FUNCTIONS, 1, "training.shard spreads the weights over the ranks"),
        ({}, NO_FUNCTIONS, 2, "the sums over 2 ranks are not recorded"),
        (UNFROZEN, NO_FUNCTIONS, 1, "training.unfreeze changes what a step computes"),
        (
            {},
            Functions(model=networks.deep),
            1,
            "the model is code of one's own, whose Python would not run in each step",
        ),
        (
            {},
            Functions(loss=cross_entropy),
            1,
            "the loss is code of one's own, whose Python would not run in each step",
        ),
        ({"task": CUSTOM}, NO_FUNCTIONS, 1, "the loss is code of one's own, whose Python would not run in each step"),
        (
            {"global_batch_size": 6, "accumulation_steps": 4},
            NO_FUNCTIONS,
            1,
            "parts of one row are looked at on the host",
        ),
    ],
)
def test_what_is_recorded(
    tmp_path: Path, snapshot: Snapshot, caplog: pytest.LogCaptureFixture, settings: Any, functions: Functions,
    world_size: int, reason: str,
) -> None:  # fmt: skip
    spec = new_run(tmp_path, snapshot, num_processes=world_size, use_gpu=True, **settings)
    caplog.set_level(logging.INFO, "mlspark.training.graph")
    assert (graph.graph_of(spec, functions, world_size, GPU, **STEP) is None) == bool(reason)
    assert caplog.messages == ([f"graph: off, because {reason}"] if reason else [])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (CustomSettings(factory="tests.training.networks:deep"), "the model is code of one's own"),
        (VisionSettings(backbone="resnet18", checkpoint_gradients=True), "model.checkpoint_gradients asks a generator"),
        (VisionSettings(backbone="resnet18"), ""),
    ],
)
def test_which_models_are_recorded(tmp_path: Path, snapshot: Snapshot, model: Model, reason: str) -> None:
    spec = replace(new_run(tmp_path, snapshot, num_processes=1), model=model)
    refusal = graph.refusal(spec, NO_FUNCTIONS, 1)
    assert refusal.startswith(reason)
    assert bool(refusal) == bool(reason)


@pytest.mark.parametrize(
    ("setting", "device", "reason"), [("auto", CPU, "there is no GPU"), ("off", GPU, "training.graph=off")]
)
def test_what_goes_without_saying(
    tmp_path: Path,
    snapshot: Snapshot,
    caplog: pytest.LogCaptureFixture,
    setting: str,
    device: torch.device,
    reason: str,
) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1, graph=setting)
    caplog.set_level(logging.DEBUG, "mlspark.training.graph")
    assert graph.graph_of(spec, NO_FUNCTIONS, 1, device, **STEP) is None
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", f"graph: off, because {reason}")
    ]


def test_setting_does_not_make_another_run(tmp_path: Path, snapshot: Snapshot) -> None:
    specs = [new_run(tmp_path / setting, snapshot, graph=setting) for setting in ("auto", "off")]
    assert specs[0].digest("table") == specs[1].digest("table")


NUMBERS = {"kind": "regression", "target": "label", "standardise": False, "loss": {"kind": "quantile"}}
CLASSES = {
    "kind": "multiclass",
    "target": "label",
    "classes": ["a", "b"],
    "loss": {"kind": "cross_entropy", "class_weights": {"a": 2.0}},
}


@pytest.mark.parametrize(
    ("settings", "functions"),
    [
        ({}, NO_FUNCTIONS),
        ({"ema_decay": 0.9, "accumulation_steps": 3, "optimizer": OptimizerSettings(clip_norm=0.1)}, NO_FUNCTIONS),
        ({"precision": "bf16", "task": binary_task(label_smoothing=0.1, class_weights={"1": 3.0})}, NO_FUNCTIONS),
        ({"optimizer": OptimizerSettings(kind="sgd"), "freeze": ("layers.0",), "memory_bytes": 2**24}, NO_FUNCTIONS),
        ({}, Functions(model=networks.deep)),
    ],
    ids=["plain", "parts", "bf16", "frozen", "batch norm"],
)
def test_replayed_run_is_the_computed_one(
    tmp_path: Path, snapshot: Snapshot, recorders: list[Again], caplog: pytest.LogCaptureFixture, settings: Any,
    functions: Functions,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "mlspark.training.graph")
    replayed, computed = (run_of(tmp_path / name, snapshot, **settings) for name in ("replayed", "computed"))
    fit_here(replayed, functions=functions)
    [recorder] = recorders
    assert recorder.replays == 2 + 3 * 7  # two tries; 7 of an epoch's 8 batches have 256 rows
    message = "graph: on, steps of 256 rows are replayed; two agree with computed ones in all bits"
    assert caplog.messages == [message]
    recorders.append(Again(nn.Module()))
    recorders[-1].missing = "it is not wanted"
    fit_here(computed, functions=functions)
    assert caplog.messages[1:] == ["graph: off, because it is not wanted"]
    assert_equal(replayed, computed)
    assert not storage.exists(storage.join(replayed.run_uri, "graph.json"))


@pytest.mark.parametrize("step", [1, 7, 8, 12])
def test_replayed_run_goes_on_with_the_same_bits(
    tmp_path: Path, snapshot: Snapshot, recorders: list[Again], step: int
) -> None:
    whole, ended = run_of(tmp_path / "whole", snapshot), run_of(tmp_path / "ended", snapshot)
    fit_here(whole)
    recorders.clear()
    stop_at(ended, step)
    recorders.clear()
    fit_here(ended)
    assert recorders[0].replays
    assert_equal(whole, ended)


PICTURES = Tensors((TensorSpec("photo", ("photo",), "uint8", picture=PictureSpec("RGB", 8, 8)),))
SHAPES = {"dense": (8, 2), "ids": (8, 1), "photo": (8, 3, 8, 8)}
DTYPES = {"float32": torch.float32, "int64": torch.int64, "uint8": torch.uint8}


@pytest.mark.parametrize(
    ("model", "tensors", "task"),
    [
        (TabularSettings(), TENSORS, binary_task(label_smoothing=0.1, class_weights={"1": 3.0})),
        (TabularSettings(), TENSORS, from_settings(CLASSES)),
        (TabularSettings(), TENSORS, from_settings(NUMBERS)),
        (TabmSettings(), TENSORS, TASK),
        (CnnSettings(widths=(8,), depth=1), PICTURES, TASK),
    ],
    ids=["binary", "classes", "quantiles", "tabm", "cnn"],
)
def test_forward_pass_and_loss_copy_nothing_to_a_gpu(model: Model, tensors: Tensors, task: Task) -> None:
    network = models.build(model, tensors, task.num_outputs)
    with FakeTensorMode():  # has CUDA tensors without values, and no GPU
        for module in network.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                module.register_parameter(name, nn.Parameter(torch.empty(weight.shape, device=GPU)))
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU))
        batch = {
            spec.name: torch.empty(SHAPES[spec.name], dtype=DTYPES[spec.dtype], device=GPU) for spec in tensors.specs
        }
        target = torch.empty(8, dtype=torch.int64 if task.kind == "multiclass" else torch.float32, device=GPU)
        for mode in (contextlib.nullcontext(), NothingIsRead()):  # constants of losses are copied once
            with mode:
                outputs = network(**batch)
                outputs = outputs if outputs.ndim == 2 else outputs.flatten(0, 1)
                losses = task.loss_of(outputs, target.repeat_interleave(len(outputs) // 8))
        assert losses.device.type == "cuda"
    losses_module._numbers.cache_clear()  # tensors without values


class Drawing(networks.Deep):
    """Leaves a layer out by chance, as Python's or NumPy's generator says."""

    draw: Callable[[], float] = staticmethod(random.random)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.low(dense) if self.draw() < 0.5 else self.high(self.low(dense)))
        return outputs


class DrawingByNumpy(Drawing):
    draw = staticmethod(np.random.random)


class Counting(networks.Deep):
    def __init__(self, num_dense: int, num_outputs: int) -> None:
        super().__init__(num_dense, num_outputs)
        self.calls = 0

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(dense, ids)


class Replacing(networks.Deep):
    """Has another tensor for a buffer after each step."""

    def __init__(self, num_dense: int, num_outputs: int) -> None:
        super().__init__(num_dense, num_outputs)
        self.register_buffer("level", torch.zeros(()))

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.level = self.level + 1.0
        return super().forward(dense, ids)


def scaled(gradients: list[torch.Tensor], by: float) -> None:
    for gradient in gradients:
        gradient.mul_(by)


@pytest.mark.parametrize(
    ("model", "spoil", "message"),
    [
        (Drawing, None, "off, because a computed step changes Python's random numbers, and a replayed one would not"),
        (
            DrawingByNumpy,
            None,
            "off, because a computed step changes NumPy's random numbers, and a replayed one would not",
        ),
        (Counting, None, "off, because a computed step changes calls, and a replayed one would not"),
        (Replacing, None, "off, because a computed step changes level, and a replayed one would not"),
        (
            networks.Deep,
            lambda gradients: scaled(gradients, 1 + 2**-15),
            "off, because the gradient of low.0.weight differs by 3.1e-05 of its norm between a recorded step and a "
            "computed one",
        ),
        (
            networks.Deep,
            lambda gradients: scaled(gradients, float("nan")),
            "off, because the gradient of low.0.weight differs by nan of its norm between a recorded step and a "
            "computed one",
        ),
    ],
)
def test_recording_that_is_not_the_step_is_not_used(
    tmp_path: Path, snapshot: Snapshot, recorders: list[Again], caplog: pytest.LogCaptureFixture, model: Any, spoil: Any,
    message: str,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "mlspark.training.graph")
    functions = Functions(model=lambda tensors, num_outputs: model(tensors.num_dense, num_outputs))
    tried, computed = run_of(tmp_path / "tried", snapshot), run_of(tmp_path / "computed", snapshot)
    recorders.append(Again(nn.Module(), spoil) if spoil else Again(nn.Module()))
    fit_here(tried, functions=functions)
    assert caplog.messages == [f"graph: {message}"]
    recorders.clear()
    run_without(computed, functions)
    assert_equal(tried, computed)
    assert not storage.exists(storage.join(tried.run_uri, "graph.json"))


def run_without(spec: TrainingSpec, functions: Functions) -> None:
    """Train with every step computed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlspark.training.step.graph_of", lambda *_, **__: None)
        fit_here(spec, functions=functions)


def test_difference_that_rounding_makes_is_said(
    tmp_path: Path, snapshot: Snapshot, recorders: list[Again], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlspark.training.graph")
    recorders.append(Again(nn.Module(), lambda gradients: scaled(gradients, 1 + 2**-18)))  # 3.8e-6
    fit_here(run_of(tmp_path, snapshot, epochs=1))
    assert caplog.messages == [
        "graph: on, steps of 256 rows are replayed; two agree with computed ones within 4e-06 of a tensor's norm"
    ]


def test_after_a_recording_that_raises_no_start_of_the_run_records(
    tmp_path: Path, snapshot: Snapshot, recorders: list[Again], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlspark.training.graph")
    functions = Functions(model=networks.deep)
    tried, computed = run_of(tmp_path / "tried", snapshot), run_of(tmp_path / "computed", snapshot)

    def fail(gradients: list[torch.Tensor]) -> None:
        try:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand much more")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    recorders.append(Again(nn.Module(), fail))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tests.training.test_resume.fit_here", lambda spec, **of: fit_here(spec, functions=functions, **of)
        )
        stop_at(tried, 9)
    fit_here(tried, functions=functions)
    reason = "RuntimeError: CUDA error: operation not permitted when stream is capturing"
    assert caplog.messages == [
        f"graph: off, because {reason}",
        "graph: off, because start 1 of the run could not record its steps",
    ]
    run_without(computed, functions)
    assert_equal(tried, computed)


def test_mark_that_cannot_be_read_stops_no_run(
    tmp_path: Path, snapshot: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1)
    (tmp_path / "graph.json").write_text("half of a fi")
    caplog.set_level(logging.INFO, "mlspark.training.graph")
    assert graph.graph_of(spec, NO_FUNCTIONS, 1, GPU, **STEP) is None
    [message] = caplog.messages
    assert message.startswith(f"graph: off, because {tmp_path}/graph.json cannot be read: ")


fit_on_gpu = functools.partial(fit_here, backend="nccl")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema_decay": 0.9, "accumulation_steps": 3, "optimizer": OptimizerSettings(clip_norm=0.1)},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"compile": True},
    ],
)
def test_graphs_of_a_gpu_are_the_computed_steps(
    tmp_path: Path, snapshot: Snapshot, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO, "mlspark.training.graph")
    runs = {name: run_of(tmp_path / name, snapshot, use_gpu=True, graph=name, **settings) for name in ("auto", "off")}
    for spec in runs.values():
        fit_on_gpu(spec)
    assert [message.partition(",")[0] for message in caplog.messages] == ["graph: on"]
    assert_equal(runs["auto"], runs["off"])
    ended = run_of(tmp_path / "ended", snapshot, use_gpu=True, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.training.test_resume.fit_here", fit_on_gpu)
        stop_at(ended, 12)
    fit_on_gpu(ended)
    assert_equal(runs["auto"], ended)
