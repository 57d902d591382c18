"""What a training step changes, on one rank: weights, optimizer, schedule, averages, and how far the run is."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from mlspark.training import optimization
from mlspark.training.checkpoint import Checkpoint, copied
from mlspark.training.driver_link import Stopped
from mlspark.training.events import Event
from mlspark.training.parallel import Alone
from mlspark.training.parameters import Freezing
from mlspark.training.settings import TrainingSettings


@dataclass(frozen=True)
class RankContext:
    """Which rank this is, where it computes, and its line to the driver."""

    rank: int
    world_size: int
    device: torch.device
    on_event: Callable[[Event], None]
    """Function that is called for each event of rank 0; see `report`."""
    should_stop: Callable[[], bool]
    """Function that rank 0 asks whether to stop."""

    def report(self, event: Event) -> None:
        """Send an event from rank 0; other ranks say nothing."""
        if self.rank == 0:
            self.on_event(event)

    def stop_if_asked(self, progress: "Progress") -> None:
        """Raise Stopped on rank 0 when the run has been asked to end; the other ranks follow when they lose it."""
        if self.rank == 0 and self.should_stop():
            raise Stopped(progress.steps)


@dataclass
class Progress:
    """How far a run is; a part of each checkpoint, the same on all ranks."""

    epoch: int = 0
    """Epoch that is being trained, from 0."""
    step: int = 0
    """Steps taken of the epoch."""
    steps: int = 0
    """Steps taken of the run."""
    rows: int = 0
    """Real rows of this epoch that were trained on so far, over all ranks."""
    row_id_sum: int = 0
    """Sum of their row ids, as a signed 64-bit number that wraps around: equal in all epochs if each row is seen once."""
    weight: int = 0
    """Sum of their sample weights, in 2^-20; without weights the number of rows, in 2^-20."""
    loss: int = 0
    """Sum of their losses, times their weights, in 2^-20."""
    seconds: float = 0.0
    """Time in the steps of this epoch, without validation and checkpoints; of lost steps, too."""
    wait_seconds: float = 0.0
    """Part of it spent waiting for data: rank 0."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """`EpochEnded` of each whole epoch as JSON."""
    best_epoch: int = 0
    """Best epoch, from 1; 0: none yet."""
    best_metrics: dict[str, Any] = field(default_factory=dict)
    """Split -> the task's metrics of the best epoch as JSON."""

    @property
    def train_loss(self) -> float:
        """Mean loss of the epoch's rows so far."""
        return self.loss / max(1, self.weight)

    def begin_epoch(self) -> None:
        """Go to the first step of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.rows = self.row_id_sum = self.weight = self.loss = 0
        self.seconds = self.wait_seconds = 0.0

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self)) | {"history": list(self.history)}


@dataclass
class RankResult:
    """What one rank leaves at the end."""

    rank: int
    world_size: int
    host: str
    steps: int
    epochs: list[dict[str, Any]]
    """`EpochEnded` of each epoch as JSON: the same on every rank but for seconds."""
    wait_seconds: float
    """Part of `train_seconds` spent waiting for data."""
    train_seconds: float
    best_epoch: int
    metrics: dict[str, Any]
    """Split (validation, test) -> the task's metrics of the best checkpoint as JSON."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class TrainState:
    """What a step changes."""

    def __init__(self, settings: TrainingSettings, parallel: Alone, freezing: Freezing, steps_per_epoch: int) -> None:
        self.parallel = parallel
        self.model: nn.Module = parallel.model
        self.optimizer = optimization.optimizer(settings.optimizer, self.model, freezing.first_epochs)
        self.schedule: LRScheduler = optimization.schedule(
            settings.optimizer, self.optimizer, epochs=settings.epochs, steps_per_epoch=steps_per_epoch
        )
        self.average: AveragedModel | None = None
        if settings.ema_decay:
            self.average = optimization.averaged(self.model, settings.ema_decay)
        self.scaler = torch.amp.GradScaler("cuda", enabled=settings.precision == "fp16")  # type: ignore[attr-defined]
        self.progress = Progress()
        self.is_whole = False
        """Whether weights, optimizer and progress are of one moment."""
        # Walking a network's names takes longer than copying its buffers.
        self._modules = list(self.model.modules())
        self._kept: list[torch.Tensor] = []
        self._is_in_step = False

    @property
    def evaluated(self) -> nn.Module:
        """The model whose weights are kept: the averaged one if there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def learning_rate(self) -> float:
        """Learning rate of parameters whose factor is 1."""
        return float(self.schedule.get_last_lr()[0]) / float(self.optimizer.param_groups[0][optimization.RATE])

    def begin_change(self) -> None:
        """Note that weights and progress differ for a moment: until `end_change` no checkpoint may be written."""
        self.is_whole = False

    def end_change(self) -> None:
        self.is_whole, self._is_in_step = True, False

    def buffers(self) -> list[torch.Tensor]:
        """Return what a forward pass changes before weights do, such as the running statistics of batch norm."""
        return [buffer for module in self._modules for buffer in module._buffers.values() if buffer is not None]

    def begin_step(self) -> None:
        """Keep the buffers."""
        buffers = self.buffers()
        if [buffer.shape for buffer in buffers] != [kept.shape for kept in self._kept]:
            self._kept = [buffer.detach().clone() for buffer in buffers]
        elif buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._kept, buffers)
        self._is_in_step = True

    def undo_step(self) -> None:
        """Go back to the moment before a step that was begun and has not changed the weights; nothing between two steps."""
        if self._is_in_step:
            with torch.no_grad():
                for buffer, kept in zip(self.buffers(), self._kept, strict=True):
                    buffer.copy_(kept)
            self._is_in_step = False

    def copy(self) -> dict[str, Any]:
        """Return a copy in memory of all but the weights; whole on rank 0, on every rank where each holds everything."""
        return {
            "optimizer": self.parallel.optimizer_state(self.optimizer),
            "schedule": copied(self.schedule.state_dict()),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else copied(self.average.state_dict()),
        }

    def load(self, saved: Checkpoint) -> None:
        """Go to the moment of a checkpoint."""
        self.parallel.load(saved.weights)
        self.parallel.load_optimizer(self.optimizer, saved.state["optimizer"])
        self.schedule.load_state_dict(saved.state["schedule"])
        self.scaler.load_state_dict(saved.state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(saved.state["average"])
        self.progress = Progress(**saved.about["progress"])
