"""The page of a monitoring: whole HTML, alarms first and linked to their columns, data shown as text."""

from typing import Any

import numpy as np

from mlspark.features import drift
from mlspark.features.profile import of_numbers, of_values
from mlspark.monitoring import checks, comparing
from mlspark.monitoring.settings import MonitoringSettings
from mlspark.reports import monitor_page
from mlspark.reports.monitor_page import Section

from .test_profile_page import EVIL, Parsed

LIMITS = MonitoringSettings()


def result(**changes: Any) -> tuple[dict[str, Any], list[Section]]:
    old = {"rows": 1000, "columns": {"job": of_values({"a": 600, "b": 400}), "age": of_numbers(np.arange(1000.0))}}
    new = {"rows": 500, "columns": {"job": of_values({"a": 250, EVIL: 250}), "age": of_numbers(np.arange(500.0) * 2)}}
    comparisons = comparing.of_columns(old, new, LIMITS, subject="input")
    comparisons.append(comparing.of_quarantine((10, 1000), (60, 560), {"age.min": 60}, LIMITS))
    judged = sorted(
        checks.judged(comparisons, false_alarms=0.01), key=lambda check: checks.VERDICTS.index(check.verdict)
    )
    whole = {
        "scores": "/lake/tables/census_scores", "score_version": 7, "model_name": "census", "model_version": 3,
        "rows_read": 560, "rows_scored": 500, "rows_quarantined": 60, "reasons": {"age.min": 60},
        "training": {"table": "/lake/features", "version": 2, "rows": 1000, "rows_read": 1010, "rows_quarantined": 10},
        "kept": {"split": "test", "rows": 99},
        "labels": {"scored": 500, "labelled": 20, "unlabelled": 480, "without_score": 4, "bad_rows": 0, "no_class": 0},
        "metrics": {
            "kept": {"num_rows": 99, "log_loss": 0.28, "log_loss_interval": [0.26, 0.3]},
            "now": {"num_rows": 20, "log_loss": 0.35, "log_loss_interval": None},
        },
        "checks": [check.to_json() for check in judged],
        "not_compared": [{"subject": "performance", "reason": "20 labelled rows, fewer than monitoring.min_rows=100"}],
        "alarms": sum(check.verdict == "alarm" for check in judged),
    }  # fmt: skip
    return whole | changes, [Section("input", old, new, drift.compare(old, new))]


def test_alarms_stand_first_and_lead_to_their_column() -> None:
    page = Parsed(monitor_page.render("census", *result()))
    for words in (
        "census: scores version 7", "3 alarms", "60 of 560 (10.71 %)", "20 of 500 (4.00 %)", "Labels of no scored row 4",
        "Performance: 20 labelled rows, fewer than monitoring.min_rows=100", "0.2800 [0.2600, 0.3000]", "age.min 60",
    ):  # fmt: skip
        assert words in page.words, words
    assert "#column-job" in page.values("href", "a")
    assert "column-job" in page.values("id", "section")
    assert page.words.index("alarm") < page.words.index("fine")
    assert not any(tag == "script" for tag, _ in page.tags)
    assert EVIL in page.text
    assert page.values("src") == []


def test_a_result_without_labels_alarms_and_kept_rows_is_a_page() -> None:
    quiet, _ = result(labels=None, metrics=None, kept=None, checks=[], alarms=0, not_compared=[])
    page = Parsed(monitor_page.render("census", quiet, []))
    assert "No alarm" in page.words
