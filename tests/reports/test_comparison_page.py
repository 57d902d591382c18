"""The page and the tables of a comparison, of classes and of numbers."""

import json
from typing import Any

import pytest

from mlspark.cost import Price
from mlspark.evaluation import comparison_report, slices
from mlspark.evaluation.compared import Compared, ComparedVersion
from mlspark.evaluation.comparison import compare, holm
from mlspark.evaluation.latency import Latency
from mlspark.evaluation.slices import Judged
from mlspark.reports.comparison_page import BAD
from tests.evaluation.two_models import BINARY, NUMBER, kept

ROWS = 400
COST = Price("small", 2, 36.0, "EUR", "a price list", "2026-11-28").to_json(90.0)


def compared(task: Any) -> Compared:
    """Three versions, the second much worse than the first and the third the same as it."""
    first, second, _ = kept(task, ROWS, noises=(0.3, 3.0))
    judged = [Judged(f"census/{place}", task, rows) for place, rows in enumerate((first, second, first), 1)]
    of_versions = tuple(
        ComparedVersion(
            each.name, "run", "trees (<script>)", task, each.rows, each.rows.metrics(task), 1_500_000, 12.5,
            Latency(1.2, 0.2, 256, 3.4), COST,
        )
        for each in judged
    )  # fmt: skip
    comparisons = tuple(compare(task, first, each.rows, resamples=200) for each in judged[1:])
    column = slices.by_slice(
        "sex", ["<b>Female</b>", "Male"] * (ROWS // 2), judged, metric=slices.default_metric(task), confidence=0.95,
        resamples=100, seed=1,
    )  # fmt: skip
    return Compared("test", "kept predictions", of_versions, comparisons, (column,), ("12 rows are left out.",))


@pytest.mark.parametrize("task", [BINARY, NUMBER], ids=["binary", "number"])
def test_page_shows_all_parts_and_escapes_values(task: Any) -> None:
    found = compared(task)

    page = comparison_report.page(found)

    assert "census/2, census/3 beside census/1" in page
    assert "&lt;b&gt;Female&lt;/b&gt;" in page
    for part in ("<script", "<b>Female", "src=", "url("):
        assert part not in page
    assert "12 rows are left out." in page
    assert "1.8000 EUR (90 s of 2 x small)" in page
    assert "a price list" not in page  # that is in the JSON
    assert ("<h2>Calibration</h2>" in page) == (task is BINARY)
    assert ("Wilcoxon" in page) == (task is NUMBER)
    assert page.count('class="num worse"') >= 3


def test_p_values_are_adjusted_over_the_comparisons() -> None:
    found = compared(BINARY)
    p_values = [each.differences["accuracy"].p_value for each in found.comparisons]

    assert found.adjusted["accuracy"] == holm(p_values)
    [worse, same, *_] = comparison_report.tables(found)
    assert worse.columns[-2:] == same.columns[-2:] == ("adjusted p", "test")
    assert worse.rows[0][3].kind == BAD
    assert same.rows[0][3].text == "+0.0000 [+0.0000, +0.0000]"
    assert same.rows[0][3].kind == ""


def test_json_has_every_figure() -> None:
    found = compared(BINARY)
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [each["version"] for each in read["versions"]] == ["census/1", "census/2", "census/3"]
    assert read["versions"][0]["latency"]["batch_rows"] == 256
    assert read["versions"][0]["cost"] == COST
    assert sum(bin_["weight"] for bin_ in read["versions"][0]["calibration"]) == ROWS
    assert read["comparisons"][0]["adjusted_p_values"]["roc_auc"] == found.adjusted["roc_auc"][0]
    assert read["slices"][0]["slices"][0]["differences"]["census/2"]["better"] == "a"
