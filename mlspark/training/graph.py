"""A step's gradients recorded once as a CUDA graph and replayed: one call instead of hundreds, each of which takes Python
longer than a GPU takes for a small network's part of it.

Recorded is what comes before the weights change: forward pass, loss, backward pass and the step's counts. Optimizer,
schedule and averages stay outside: each is a few calls for all parameters, and what changes from step to step in them (the
learning rate, AdamW's momentum under one_cycle) is a number of the host, which a recording would freeze.

A recording is used only if its first replays give what computing gives from the same state: see `StepGraph.prepare`.
"""

import contextlib
import logging
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from mlspark import storage
from mlspark.models.custom import CustomSettings
from mlspark.tasks.losses import CustomLoss
from mlspark.training.network import Batch
from mlspark.training.spec import Functions, TrainingSpec

logger = logging.getLogger(__name__)

LOSS = 3
"""Place of a step's counts at which the sum of its losses stands, rounded; the others are exact."""
_TOLERANCE, _TOLERANCE_HALF = 1e-5, 1e-2
"""Greatest difference of a tensor's replayed and computed values, as a share of its norm, for float32 and for bf16 and fp16.
Bits are equal where operations have a deterministic form and `training.deterministic` asks for it."""

Compute = Callable[[Batch], torch.Tensor]
"""Function that puts a batch's gradients into `grad` of the parameters, where none are, and returns the counts (5,) int64.

It reads nothing back from the device, and allocates what it needs."""


class Recorder(Protocol):
    """What records a computation: `GpuRecorder`."""

    def aside(self) -> AbstractContextManager[None]:
        """Compute on a stream of its own, as torch asks for before a recording."""

    def record(self, compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        """Return what `compute` returns, and a function by which that, and the gradients, are computed anew in place."""

    def shortage(self) -> str:
        """Return why the recording cannot be kept for want of memory; empty: it can."""


class GpuRecorder:
    """Records CUDA graphs on the current device."""

    def __init__(self, model: nn.Module) -> None:
        trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
        self._moments = 2 * sum(parameter.numel() * parameter.element_size() for parameter in trained)
        self._needed = 0

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """See `Recorder.aside`; notes what memory a computation needs."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        # The optimizer allocates its moments in its first step: AdamW's are the largest.
        self._needed = torch.cuda.max_memory_allocated() - before + self._moments

    def record(self, compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        """See `Recorder.record`."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Threads that page-lock batches or ask NCCL's events go on meanwhile: only this thread's calls are restricted.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                counts = compute()
        finally:
            torch.cuda.set_stream(stream)  # torch 2.12 stays on the stream of a recording that failed
        return counts, graph.replay

    def shortage(self) -> str:
        """See `Recorder.shortage`: a recording keeps its intermediate results, and steps beside it need theirs."""
        free, _ = torch.cuda.mem_get_info()
        if free >= self._needed:
            return ""
        needs, has = f"{self._needed / 2**20:,.0f} MiB", f"{free / 2**20:,.0f} MiB"
        return f"a computed step needs {needs}, and beside the recording {has} of the GPU are free"


def refusal(spec: TrainingSpec, functions: Functions, world_size: int) -> str:
    """Return why the steps of a run on GPUs are not recorded; empty: they may be."""
    training = spec.training
    if training.shard:
        return "training.shard spreads the weights over the ranks"
    if world_size > 1:
        return f"the sums over {world_size} ranks are not recorded"
    if training.unfreeze:
        return "training.unfreeze changes what a step computes"
    if getattr(spec.model, "checkpoint_gradients", False):
        return "model.checkpoint_gradients asks a generator for its state in each step"
    if functions.model is not None or isinstance(spec.model, CustomSettings):
        return "the model is code of one's own, whose Python would not run in each step"
    if functions.loss is not None or isinstance(getattr(spec.task, "loss", None), CustomLoss):
        return "the loss is code of one's own, whose Python would not run in each step"
    if training.global_batch_size // training.accumulation_steps < 2:
        return "parts of one row are looked at on the host"
    return ""


def graph_of(
    spec: TrainingSpec,
    functions: Functions,
    world_size: int,
    device: torch.device,
    *,
    compute: Compute,
    model: nn.Module,
    seed: Callable[[int], None],
) -> "StepGraph | None":
    """Return what records and replays a run's steps; None where they are computed one by one, which the log says."""
    if spec.training.graph == "off" or device.type != "cuda":
        logger.debug("graph: off, because %s", "training.graph=off" if device.type == "cuda" else "there is no GPU")
        return None
    mark = Mark(spec)
    if reason := refusal(spec, functions, world_size) or mark.earlier():
        logger.info("graph: off, because %s", reason)
        return None
    tolerance = _TOLERANCE if spec.training.precision == "float32" else _TOLERANCE_HALF
    rows = spec.training.global_batch_size
    return StepGraph(compute, model, seed, rows=rows, tolerance=tolerance, recorder=GpuRecorder(model), mark=mark)


class Mark:
    """A file of the run that stands from before a recording until it is known to be good.

    A start that ends while it records, or by what a failed recording leaves behind, is followed by one that does not record.
    """

    def __init__(self, spec: TrainingSpec) -> None:
        self._uri, self._attempt = storage.join(spec.run_uri, "graph.json"), spec.attempt

    def earlier(self) -> str:
        """Return which earlier start left the mark; empty: none."""
        try:
            if not storage.exists(self._uri):
                return ""
            return f"start {storage.read_json(self._uri)['attempt']} of the run could not record its steps"
        except (OSError, ValueError) as error:
            return f"{self._uri} cannot be read: {error}"

    def set(self) -> None:
        storage.write_json(self._uri, {"attempt": self._attempt})

    def remove(self) -> None:
        with contextlib.suppress(OSError):  # then no further start records, which is slower and no worse
            storage.delete(self._uri)


class StepGraph:
    """Replays the gradients of full batches; of others, and where the recording was not good, the caller computes them."""

    def __init__(
        self,
        compute: Compute,
        model: nn.Module,
        seed: Callable[[int], None],
        *,
        rows: int,
        tolerance: float,
        recorder: Recorder,
        mark: Mark,
    ) -> None:
        """Record nothing yet.

        Args:
            compute: what is recorded.
            model: whose parameters get gradients, and whose buffers a computation may change.
            seed: sets all generators for a step of a number.
            rows: of a full batch.
            tolerance: see `_differences`.
            recorder: of the device.
            mark: of the run.
        """
        self._compute, self._model, self._seed = compute, model, seed
        self._rows, self._tolerance, self._recorder, self._mark = rows, tolerance, recorder, mark
        self._parameters = list(model.parameters())
        self._static: dict[str, torch.Tensor] = {}
        self._gradients: list[torch.Tensor | None] = []
        self._counts = torch.empty(0)
        self._replay: Callable[[], None] | None = None
        self._is_tried = False  # whether a recording was made, or given up

    def prepare(self, batch: Batch) -> None:
        """Record with the first full batch, once; called between two steps, of which it leaves everything but generators.

        The batch, and one like it with other targets, are computed and then replayed, each from the same buffers and
        random numbers. Gradients, counts and buffers must agree, and computing may have changed nothing that replaying
        would not: the host's generators, plain values of modules. Otherwise, and after any exception of a recording, steps
        are computed one by one, and the log says why.
        """
        if self._is_tried or not self._is_full(batch):
            return
        self._is_tried = True
        buffers = _Buffers(self._model)
        is_harmless = True
        try:
            self._mark.set()
            problem = self._record(batch, buffers)
        except Exception as error:  # whatever cannot be recorded raises, in torch's, CUDA's or a model's words
            problem, is_harmless = _cause(error), False
        buffers.put_back()
        self._forget_gradients()
        if problem:
            self._replay, self._counts, self._gradients, self._static = None, torch.empty(0), [], {}
            logger.info("graph: off, because %s", problem)
        if is_harmless:
            self._mark.remove()

    def replayed(self, batch: Batch) -> torch.Tensor | None:
        """Put a batch's gradients into the parameters and return its counts; None where the batch is to be computed."""
        if self._replay is None or not self._is_full(batch):
            return None
        self._fill(batch)
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._counts.clone()  # the next replay writes there

    def _is_full(self, batch: Batch) -> bool:
        """Return whether a batch has all its rows, and the tensors of the one that was recorded."""
        if len(batch["is_padding"]) != self._rows:
            return False
        return not self._static or _layout(batch) == _layout(self._static)

    def _record(self, batch: Batch, buffers: "_Buffers") -> str:
        """Record the computation of a batch; return what is wrong with the recording, empty: nothing."""
        self._static = {name: tensor.clone() for name, tensor in batch.items()}
        others = {**batch, "target": batch["target"].roll(1), "row_id": batch["row_id"] + 1}
        tries: list[tuple[int, Batch]] = [(0, batch), (1, others)]

        def begin(number: int, rows: Batch) -> None:
            buffers.put_back()
            self._fill(rows)
            self._seed(number)

        def results(counts: torch.Tensor) -> dict[str, torch.Tensor]:
            names = [name for name, _ in self._model.named_parameters()]
            gradients = {
                f"the gradient of {name}": parameter.grad
                for name, parameter in zip(names, self._parameters, strict=True)
                if parameter.grad is not None
            }
            found = {"the counts": counts, **gradients, **dict(self._model.named_buffers())}
            return {name: value.detach().clone() for name, value in found.items()}

        expected = []
        with self._recorder.aside():
            for number, rows in tries:
                begin(number, rows)
                before = _host_state(self._model)
                self._forget_gradients()
                expected.append(results(self._compute(self._static)))
                if problem := _changes(before, _host_state(self._model)):
                    return problem
        self._forget_gradients()
        buffers.put_back()
        self._counts, replay = self._recorder.record(lambda: self._compute(self._static))
        self._gradients = [parameter.grad for parameter in self._parameters]
        most = 0.0
        for (number, rows), computed in zip(tries, expected, strict=True):
            begin(number, rows)
            replay()
            for name, difference in _differences(results(self._counts), computed):
                if not difference <= self._tolerance:
                    return f"{name} differs by {difference:.1e} of its norm between a recorded step and a computed one"
                most = max(most, difference)
        if problem := self._recorder.shortage():
            return problem
        self._replay = replay
        agreement = f"within {most:.0e} of a tensor's norm" if most else "in all bits"
        logger.info("graph: on, steps of %s rows are replayed; two agree with computed ones %s", self._rows, agreement)
        return ""

    def _fill(self, batch: Batch) -> None:
        torch._foreach_copy_([self._static[name] for name in batch], list(batch.values()))

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def _cause(error: BaseException) -> str:
    """Return the exception that others came after, in a line: the end of a recording that failed raises one of its own."""
    while error.__context__ is not None:
        error = error.__context__
    [line, *_] = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {line}"


def _layout(batch: Batch) -> dict[str, tuple[Any, ...]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in batch.items()}


class _Buffers:
    """A model's buffers, such as running statistics of batch norm, as they were."""

    def __init__(self, model: nn.Module) -> None:
        self._kept = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def put_back(self) -> None:
        """Have the model hold the same tensors with the same values again."""
        with torch.no_grad():
            for module, name, buffer, kept in self._kept:
                module._buffers[name] = buffer
                buffer.copy_(kept)


def _differences(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, float]]:
    """Yield each tensor's difference as a share of the expected one's norm: 0 for equal ones; may be infinite or NaN."""
    if found.keys() != expected.keys():
        yield f"having {', '.join(sorted(found.keys() ^ expected.keys()))}", float("inf")
        return
    for name, tensor in found.items():
        other = expected[name]
        if name == "the counts":
            is_exact = torch.arange(len(tensor), device=tensor.device) != LOSS
            yield name, 0.0 if torch.equal(tensor[is_exact], other[is_exact]) else float("inf")
            tensor, other = tensor[LOSS], other[LOSS]
        is_same = (tensor == other) | (tensor.isnan() & other.isnan())  # fp16 begins with gradients that are infinite
        if is_same.all():
            yield name, 0.0
            continue
        difference = (tensor.double() - other.double()).masked_fill(is_same, 0.0)
        yield name, float(difference.norm() / other.double().nan_to_num(0.0, 0.0, 0.0).norm())


def _host_state(model: nn.Module) -> dict[str, Any]:
    """Return what a forward pass may use or change and a replay would not: generators, plain values, places of buffers."""
    values = {
        f"{name}.{key}".strip("."): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str)
    }
    state: dict[str, Any] = {"Python's random numbers": random.getstate()}
    state["NumPy's random numbers"] = pickle.dumps(np.random.get_state())
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        state["random numbers of the CPU"] = pickle.dumps(torch.default_generator.get_state().numpy())
    places = {name: buffer.data_ptr() for name, buffer in model.named_buffers()}
    return state | values | places


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what a forward pass changed; empty: nothing."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return f"a computed step changes {changed[0]}, and a replayed one would not" if changed else ""
