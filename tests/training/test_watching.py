import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mlspark.errors import ConfigError
from mlspark.training import watching
from mlspark.training.watching import EventFile, TensorBoard

PROGRESS = {
    "event": "progress", "epoch": 2, "epochs": 3, "step": 1200, "steps": 2400, "train_loss": 0.31416, "seconds_left": 75.0,
    "rows_per_second": 123456.7, "data_wait_fraction": 0.014, "learning_rate": 0.001,
}  # fmt: skip
EPOCH = {
    "event": "epoch", "epoch": 1, "epochs": 3, "step": 800, "train_loss": 0.4, "validation_log_loss": 0.5,
    "validation_accuracy": 0.8, "validation_roc_auc": None, "rows_per_second": 1000.0, "data_wait_fraction": 0.5,
    "learning_rate": 0.002,
}  # fmt: skip


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (PROGRESS, "epoch 2/3, step 1,200 of 2,400: loss 0.3142, 123,457 rows/s, waited 1 %, 1 min 15 s left"),
        (EPOCH, "epoch 1/3: step 800, loss 0.4000, validation loss 0.5000, accuracy 0.8000, AUC nan, "
         "1,000 rows/s, waited 50 %"),
        ({"event": "resumed", "epoch": 2, "step": 900}, "going on in epoch 2, after step 900"),
        ({"event": "storage", "message": "no space"}, "no space"),
    ],
)  # fmt: skip
def test_events_are_lines_for_people(event: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mlspark"):
        watching.tell(event)
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert watching.duration(seconds) == text


def test_event_file_grows_by_a_line_per_event_through_restarts(tmp_path: Path) -> None:
    file = tmp_path / "run" / "events.jsonl"
    for event in (PROGRESS, EPOCH):
        log = EventFile(str(file))
        log.write(event)
        log.close()
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["event"] for event in found] == ["progress", "epoch"]
    assert found[0]["time"] <= found[1]["time"]
    assert {**PROGRESS, "time": found[0]["time"]} == found[0]


def test_curves_are_drawn(tmp_path: Path) -> None:
    epochs = [{**EPOCH, "epoch": number, "train_loss": 1 / number} for number in range(1, 4)]
    watching.draw(epochs, tmp_path / "curves.png", best_epoch=2)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_is_optional(tmp_path: Path) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"tracking\.tensorboard needs the package tensorboard: pip install"):
            TensorBoard(str(tmp_path), "run")
    else:
        board = TensorBoard(str(tmp_path), "run")
        board.write(PROGRESS)
        board.close()
        assert list((tmp_path / "run").glob("events.*"))
    TensorBoard("", "run").write(PROGRESS)
