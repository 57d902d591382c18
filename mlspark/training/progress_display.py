"""What people and programs see of a training while it runs: lines, a file of events, curves. Driver."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlspark.errors import ConfigError
from mlspark.tasks.metrics import title
from mlspark.tasks.task import Task
from mlspark.training.events import (
    EpochEnded,
    Event,
    Grown,
    OfMember,
    Progressed,
    RankSilent,
    Resumed,
    Started,
    StorageTrouble,
)

logger = logging.getLogger(__name__)


class EventFile:
    """A JSON-lines file that grows by a line per event: for a scheduler to follow, through restarts of the driver too.

    A file that cannot be written is a warning, and no reason to end a training.
    """

    def __init__(self, file: str) -> None:
        """Open for appending; file "": write nowhere."""
        self._file = file
        self._stream: TextIO | None = None
        if file:
            with self._given_up_on_error():
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                self._stream = Path(file).open("a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)

    def write(self, event: Event) -> None:
        """Add a line, at once: the event, and when it was, in seconds since 1970."""
        if self._stream is not None:
            with self._given_up_on_error():
                self._stream.write(json.dumps({"time": round(time.time(), 3), **event.to_json()}) + "\n")
                self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            with self._given_up_on_error():
                self._stream.close()

    @contextlib.contextmanager
    def _given_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.warning("tracking.events: %s cannot be written (%s); training goes on without it", self._file, error)
            stream, self._stream = self._stream, None
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class TensorBoard:
    """TensorBoard's files of one run."""

    def __init__(self, folder: str, run: str) -> None:
        """Begin a file; folder "": write nowhere.

        Raises:
            ConfigError: the package is missing.
        """
        self._writer: Any = None
        if folder:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ConfigError(
                    "tracking.tensorboard needs the package tensorboard: pip install tensorboard, or leave it empty"
                ) from None
            with self._given_up_on_error():
                self._writer = SummaryWriter(str(Path(folder) / run))

    def write(self, event: Event) -> None:
        """Add the event's numbers, at its step."""
        if self._writer is not None:
            with self._given_up_on_error():
                of, prefix = (event.event, f"{event.member}/") if isinstance(event, OfMember) else (event, "")
                for name, value in numbers(of).items():
                    self._writer.add_scalar(f"{prefix}{of.name}/{name}", value, getattr(of, "step", 0))

    def close(self) -> None:
        if self._writer is not None:
            with self._given_up_on_error():
                self._writer.close()

    @contextlib.contextmanager
    def _given_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.warning("tracking.tensorboard cannot be written (%s); training goes on without it", error)
            self._writer = None


def numbers(event: Event) -> dict[str, float]:
    """Return the figures of an event by their names in its JSON."""
    return {key: value for key, value in event.to_json().items() if isinstance(value, float)}


def show(event: Event, *, member: str = "") -> None:
    """Log an event as a line for people, with the `member` of an ensemble in front whose it is."""
    of = f"{member}: " if member else ""
    match event:
        case Started() if event.attempt > 1:
            logger.info("%sstart %d of this run, %d ranks", of, event.attempt, event.world_size)
        case Resumed():
            logger.info("%sgoing on in epoch %d, after step %d", of, event.epoch, event.step)
        case Progressed():
            logger.info(
                "%sepoch %d/%d, step %s of %s: loss %.4f, %s rows/s, waited %.0f %%, %s left",
                of, event.epoch, event.epochs, f"{event.step:,}", f"{event.steps:,}", event.train_loss,
                f"{event.rows_per_second:,.0f}", 100 * event.data_wait_fraction, duration(event.seconds_left),
            )  # fmt: skip
        case Grown():
            logger.info("%sround %s of at most %s", of, f"{event.rounds:,}", f"{event.most_rounds:,}")
        case EpochEnded():
            logger.info(
                "%sepoch %d/%d: step %d, loss %.4f%s, %s rows/s, waited %.0f %%",
                of, event.epoch, event.epochs, event.step, event.train_loss, _metrics_line(event),
                f"{event.rows_per_second:,.0f}", 100 * event.data_wait_fraction,
            )  # fmt: skip
        case StorageTrouble() | RankSilent():
            logger.warning("%s%s", of, event.message)
        case OfMember():
            show(event.event, member=event.member)


_SHOWN = ("log_loss", "accuracy", "roc_auc", "balanced_accuracy", "rmse", "mae", "r2", "pinball")
"""Metrics in a line for people: the first three of them that the task has."""


def _metrics_line(event: EpochEnded) -> str:
    figures = metrics_line(event.validation)
    return f", validation {figures}" if figures else ""


def metrics_line(metrics: Mapping[str, float | None]) -> str:
    """Return the metrics that people look at first: "log loss 0.2701, accuracy 0.8740, ROC AUC 0.9281"."""
    shown = [(title(name), metrics[name]) for name in _SHOWN if name in metrics][:3]
    return ", ".join(f"{label} {float('nan') if value is None else value:.4f}" for label, value in shown)


def duration(seconds: float) -> str:
    """Return seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def draw(epochs: Sequence[EpochEnded], task: Task, file: Path, *, best_epoch: int) -> None:
    """Draw losses, the task's validation metrics and the learning rate by epoch into a PNG file."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    names = [name for name in _SHOWN if name in task.metric_names]
    errors = [name for name in names if task.lower_is_better(name)]
    others = [name for name in names if name not in errors] or errors
    panels: list[tuple[str, Mapping[str, Sequence[float | None]]]] = [
        (
            "loss per row",
            {"training": [epoch.train_loss for epoch in epochs]}
            | {f"validation {title(name)}": _curve(epochs, name) for name in errors if name == "log_loss"},
        ),
        ("validation", {title(name): _curve(epochs, name) for name in others}),
        ("learning rate", {"at the epoch's end": [epoch.learning_rate for epoch in epochs]}),
    ]
    for axis, (heading, curves) in zip(axes, panels, strict=True):
        for label, values in curves.items():
            if any(value is not None for value in values):
                shown = [float("nan") if value is None else value for value in values]
                axis.plot([epoch.epoch for epoch in epochs], shown, marker="o", markersize=3, label=label)
        axis.axvline(best_epoch, color="0.7", linestyle=":", label=f"best epoch ({best_epoch})")
        axis.set(title=heading, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)


def _curve(epochs: Sequence[EpochEnded], name: str) -> list[float | None]:
    return [epoch.validation.get(name) for epoch in epochs]
