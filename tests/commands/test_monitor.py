"""The command line of monitoring: what it says of labels becomes settings, and what a person is told."""

from pathlib import Path
from typing import Any

import pytest

from mlspark.commands import monitor
from mlspark.errors import ConfigError

from ..conftest import census_settings
from ..reports.test_monitor_page import result

CHECK: dict[str, Any] = {
    "subject": "performance", "name": "log_loss", "measure": "metric_loss", "value": 0.25, "limit": 0.05,
    "verdict": "alarm", "old": 0.28, "new": 0.35, "old_interval": [0.26, 0.3], "new_interval": [0.33, 0.37], "detail": "",
}  # fmt: skip


def test_labels_of_the_command_line_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = list(monitor._label_settings("late/labels.tsv", None, ["missing=?"], ["customer", "asked_at"]))
    settings = census_settings(tmp_path, tmp_path, *overrides).monitoring
    assert settings.label_key == ("customer", "asked_at")
    labels: Any = settings.labels
    # From where the command runs, not from sources.root; with a header, as a file of labels has.
    assert (labels.kind, labels.path, labels.separator, labels.header) == (
        "csv",
        f"{tmp_path}/late/labels.tsv",
        "\t",
        True,
    )
    [bare] = monitor._label_settings("labels.csv", "csv", ["header=false"], [])
    assert census_settings(tmp_path, tmp_path, bare).monitoring.labels.header is False  # type: ignore[union-attr]
    assert list(monitor._label_settings(None, None, [], [])) == []
    with pytest.raises(ConfigError, match="belong to --labels SOURCE"):
        list(monitor._label_settings(None, "csv", [], []))


def test_a_person_is_told_of_alarms_and_of_what_was_not_compared() -> None:
    shown, _ = result()
    shown["checks"] = [CHECK, *shown["checks"]]
    lines = list(monitor.lines(shown))
    assert lines[0] == "scores version 7: 500 rows by census version 3, which was trained on 1,000 rows"
    assert lines[1] == "  labels: 20 of 500 rows have one (4.0 %), 4 labels of no scored row"
    assert lines[2] == "  log loss: 0.3500 [0.3300, 0.3700], 0.2800 [0.2600, 0.3000] on the kept test rows"
    assert lines[3] == "  performance not compared: 20 labelled rows, fewer than monitoring.min_rows=100"
    assert "  ALARM performance: log loss: worse by 25.0 %, limit 5.0 %, 0.28 in training, 0.35 now" in lines
    assert any(line.startswith("  ALARM columns: job: PSI 5.857, limit 0.250") for line in lines)
    quarantine = "increase of quarantined share 9.7 %, limit 2.0 %, 1.0 % in training, 10.7 % now: age.min 60"
    assert f"  ALARM quarantine: rows: {quarantine}" in lines
