"""What people and programs see of a running training: lines, a log of events, curves. Driver."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlspark.errors import ConfigError

logger = logging.getLogger(__name__)


class EventFile:
    """A JSON-lines file that grows by a line per event: for a scheduler to follow, through restarts of the driver too."""

    def __init__(self, file: str) -> None:
        """Open for appending; file "": write nowhere."""
        self._stream: TextIO | None = None
        if file:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            self._stream = Path(file).open("a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)

    def write(self, event: Mapping[str, Any]) -> None:
        """Add a line, at once: the event, and when it was, in seconds since 1970."""
        if self._stream is not None:
            self._stream.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")
            self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


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
            self._writer = SummaryWriter(str(Path(folder) / run))

    def write(self, event: Mapping[str, Any]) -> None:
        """Add the event's numbers, at its step."""
        if self._writer is not None:
            for name, value in numbers(event).items():
                self._writer.add_scalar(f"{event['event']}/{name}", value, event.get("step", 0))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def numbers(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of an event."""
    return {key: value for key, value in event.items() if isinstance(value, float)}


def tell(event: Mapping[str, Any]) -> None:
    """Log an event as a line for people."""
    match event["event"]:
        case "started" if event["attempt"] > 1:
            logger.info("start %d of this run, %d ranks", event["attempt"], event["world_size"])
        case "resumed":
            logger.info("going on in epoch %d, after step %d", event["epoch"], event["step"])
        case "progress":
            logger.info(
                "epoch %d/%d, step %s of %s: loss %.4f, %s rows/s, waited %.0f %%, %s left",
                event["epoch"], event["epochs"], f"{event['step']:,}", f"{event['steps']:,}", event["train_loss"],
                f"{event['rows_per_second']:,.0f}", 100 * event["data_wait_fraction"], duration(event["seconds_left"]),
            )  # fmt: skip
        case "epoch":
            logger.info(
                "epoch %d/%d: step %d, loss %.4f, validation loss %.4f, accuracy %.4f, AUC %.4f, %s rows/s, waited %.0f %%",
                event["epoch"], event["epochs"], event["step"], event["train_loss"],
                *(event.get(f"validation_{name}") or float("nan") for name in ("log_loss", "accuracy", "roc_auc")),
                f"{event['rows_per_second']:,.0f}", 100 * event["data_wait_fraction"],
            )  # fmt: skip
        case "storage" | "silent":
            logger.warning("%s", event["message"])


def duration(seconds: float) -> str:
    """Return seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def draw(epochs: Sequence[Mapping[str, Any]], file: Path, *, best_epoch: int) -> None:
    """Draw losses, learning rate and validation metrics by epoch into a PNG file."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    numbers_of = [epoch["epoch"] for epoch in epochs]
    panels: list[tuple[str, dict[str, str]]] = [
        ("log loss, nats per row", {"train_loss": "training", "validation_log_loss": "validation"}),
        ("validation", {"validation_accuracy": "accuracy", "validation_roc_auc": "ROC AUC"}),
        ("learning rate", {"learning_rate": "at the epoch's end"}),
    ]
    for axis, (title, curves) in zip(axes, panels, strict=True):
        for key, label in curves.items():
            values = [epoch.get(key) for epoch in epochs]
            if any(value is not None for value in values):
                shown = [float("nan") if value is None else value for value in values]
                axis.plot(numbers_of, shown, marker="o", markersize=3, label=label)
        axis.axvline(best_epoch, color="0.7", linestyle=":", label=f"best epoch ({best_epoch})")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
