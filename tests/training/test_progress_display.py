import dataclasses
import json
import logging
from pathlib import Path

import pytest

from mlspark.errors import ConfigError
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.task import Task
from mlspark.training import events, progress_display
from mlspark.training.events import (
    AttemptFailed,
    Begun,
    CheckpointWritten,
    EpochEnded,
    Evaluated,
    Event,
    Grown,
    OfMember,
    Progressed,
    RankSilent,
    Restarting,
    Resumed,
    RunEnded,
    Started,
    StorageTrouble,
)
from mlspark.training.progress_display import EventFile, TensorBoard

from .conftest import TASK

PROGRESS = Progressed(
    epoch=2, epochs=3, step=1200, steps=2400, train_loss=0.31416, seconds_left=75.0,
    rows_per_second=123456.7, data_wait_fraction=0.014, learning_rate=0.001,
)  # fmt: skip
EPOCH = EpochEnded(
    epoch=1, epochs=3, step=800, train_loss=0.4, rows_per_second=1000.0, data_wait_fraction=0.5, learning_rate=0.002,
    rows=800, row_id_sum=-5, seconds=1.0, wait_seconds=0.5, is_best=True,
    validation={"accuracy": 0.8, "roc_auc": None, "log_loss": 0.5},
)  # fmt: skip
NUMBERS = dataclasses.replace(EPOCH, validation={"rmse": 2.5, "mae": 1.5, "median_ae": 1.0, "r2": 0.25})
EVENTS = [
    PROGRESS, EPOCH, NUMBERS, Started(1, 2, "run"), Resumed(2, 900), Begun(1, 0), CheckpointWritten(8, 0.5),
    StorageTrouble("no space"), Grown(12, 2000),
    Evaluated("test", 24, {"num_rows": 3, "accuracy": 0.5, "accuracy_interval": [0.1, 0.9]}),
    RankSilent("rank 1"), AttemptFailed(1, "odd"), Restarting(1, 2, 0.5), RunEnded(is_finished=True),
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.name))
def test_events_survive_their_json(event: Event) -> None:
    value = json.loads(json.dumps(event.to_json()))
    assert value["event"] == event.name
    assert events.from_json(value) == event


def test_metrics_stand_beside_the_other_figures_of_an_event() -> None:
    assert EPOCH.to_json()["validation_log_loss"] == 0.5
    assert EPOCH.to_json()["validation_roc_auc"] is None
    assert progress_display.numbers(next(event for event in EVENTS if isinstance(event, Evaluated))) == {
        "accuracy": 0.5
    }


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (PROGRESS, "epoch 2/3, step 1,200 of 2,400: loss 0.3142, 123,457 rows/s, waited 1 %, 1 min 15 s left"),
        (EPOCH, "epoch 1/3: step 800, loss 0.4000, validation log loss 0.5000, accuracy 0.8000, ROC AUC nan, "
         "1,000 rows/s, waited 50 %"),
        (NUMBERS, "epoch 1/3: step 800, loss 0.4000, validation RMSE 2.5000, MAE 1.5000, R2 0.2500, "
         "1,000 rows/s, waited 50 %"),
        (Resumed(2, 900), "going on in epoch 2, after step 900"),
        (StorageTrouble("no space"), "no space"),
        (OfMember("trees", Grown(12, 2000)), "trees: round 12 of at most 2,000"),
        (OfMember("tabm-1", StorageTrouble("no space")), "tabm-1: no space"),
    ],
)  # fmt: skip
def test_events_are_lines_for_people(event: Event, line: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mlspark"):
        progress_display.show(event)
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert progress_display.duration(seconds) == text


def test_event_file_grows_by_a_line_per_event_through_restarts(tmp_path: Path) -> None:
    file = tmp_path / "run" / "events.jsonl"
    for event in (PROGRESS, EPOCH):
        log = EventFile(str(file))
        log.write(event)
        log.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["event"] for event in lines] == ["progress", "epoch"]
    assert lines[0]["time"] <= lines[1]["time"]
    assert {**PROGRESS.to_json(), "time": lines[0]["time"]} == lines[0]


@pytest.mark.parametrize(
    ("event", "task"), [(EPOCH, TASK), (NUMBERS, from_settings({"kind": "regression", "target": "age"}))]
)
def test_curves_are_drawn(tmp_path: Path, event: EpochEnded, task: Task) -> None:
    epochs = [dataclasses.replace(event, epoch=number, train_loss=1 / number) for number in range(1, 4)]
    progress_display.draw(epochs, task, tmp_path / "curves.png", best_epoch=2)
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


@pytest.mark.parametrize("file", ["/dev/full", "/proc/no/such/events.jsonl", "/"])
def test_log_that_cannot_be_written_is_one_warning(file: str, caplog: pytest.LogCaptureFixture) -> None:
    log = EventFile(file)
    for step in range(3):
        log.write(Resumed(1, step))
    log.close()
    assert caplog.text.count("cannot be written") == 1
    assert f"tracking.events: {file} cannot be written" in caplog.text


def test_folder_of_tensorboard_that_cannot_be_written_is_one_warning(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").touch()
    board = TensorBoard(str(tmp_path / "file"), "run")
    board.write(Resumed(1, 1))
    board.close()
    assert caplog.text.count("tracking.tensorboard cannot be written") == 1
