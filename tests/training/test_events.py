import time
from pathlib import Path
from typing import Any

import pytest

from mlspark.training.events import EventLog, following


def test_events_come_in_order_exactly_once_while_the_body_runs(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    log = EventLog(str(tmp_path / "events"))
    with following(str(tmp_path / "events"), seen.append, poll_seconds=0.01):
        log.write({"epoch": 1})
        log.write({"epoch": 2})
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen == [{"epoch": 1}, {"epoch": 2}]
        log.write({"epoch": 3})
    assert seen == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]


def test_events_before_a_failure_are_delivered(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def fail() -> None:
        EventLog(str(tmp_path)).write({"epoch": 1})
        raise RuntimeError("rank failed")

    with pytest.raises(RuntimeError, match="rank failed"), following(str(tmp_path), seen.append):
        fail()
    assert seen == [{"epoch": 1}]


def test_failure_of_the_listener_is_raised_at_the_end(tmp_path: Path) -> None:
    def refuse(event: dict[str, Any]) -> None:
        raise ConnectionError("tracking server is gone")

    with pytest.raises(ConnectionError, match="tracking server"), following(str(tmp_path), refuse):
        EventLog(str(tmp_path)).write({"epoch": 1})
