"""The page of an evaluation: whole HTML, nothing from elsewhere, names as text, figures that scikit-learn agrees with."""

import base64
import io
import itertools
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics

from mlspark.evaluation.predictions import Predictions
from mlspark.reports import line_plot, row_pictures
from mlspark.reports.evaluation_page import Evaluation, render
from mlspark.reports.line_plot import Series
from mlspark.reports.rows_section import Contribution, Examined, ExaminedRow
from mlspark.tasks.kinds import from_settings

from .test_profile_page import EVIL, POLICY, Parsed

EPOCHS = [
    {
        "epoch": epoch, "train_loss": 1 / epoch, "learning_rate": 0.1 / epoch, "validation_log_loss": 0.9 / epoch,
        "validation_accuracy": 1 - 0.5 / epoch, "validation_roc_auc": None, "validation_rmse": 3.0 / epoch,
    }
    for epoch in (1, 2, 3)
]  # fmt: skip


def evaluation(task: dict[str, Any], outputs: Any, target: Any, **others: Any) -> Evaluation:
    made: Any = from_settings({"target": "y", **task})
    kept = Predictions.of(np.arange(len(target)), target, outputs)
    found = kept.metrics(made, intervals=False)
    about = (("Model", EVIL), ("Trained on", "version 3 of /lake/tables/people_features"))
    splits = {"validation": found, "test": found}
    return Evaluation("people: evaluation of version 7", about, made, splits, "test", kept, **others)


def classes(names: list[str], count: int = 400, absent: int | None = None) -> tuple[dict[str, Any], Any, Any]:
    """A task, and outputs that are right in most rows; no row is of the class `absent`."""
    random = np.random.default_rng(0)
    target = random.integers(0, len(names), count)
    target = np.where(target == absent, 0, target)
    outputs = random.normal(size=(count, len(names)))
    outputs[np.arange(count), target] += 2
    if absent is not None:
        outputs[:, absent] = -50
    return {"kind": "multiclass", "classes": names}, outputs, target


THREE = classes(["circle", EVIL, "\u202eturned"])
random = np.random.default_rng(5)
LOGITS = random.normal(size=300)
EVENTS = (random.random(300) < 1 / (1 + np.exp(-LOGITS))).astype(float)
BINARY = {"kind": "binary", "classes": ["no", EVIL]}, LOGITS[:, None], EVENTS
NUMBERS = {"kind": "regression", "standardise": False}, LOGITS[:, None] * 1e5, LOGITS * 1e5 + EVENTS * 1e4
ROW = ExaminedRow(
    -42,
    f"{EVIL}, predicted no",
    ("probability of no 0.9",),
    pictures={"photo": np.zeros((3, 8, 8), np.uint8)},
    maps={"photo": np.ones((8, 8))},
    contributions=[Contribution(f"c{place}", (-1.0) ** place * place, "1.5", EVIL) for place in range(12)],
)
EXAMINED = Examined("Worst mistakes", (f"of {EVIL}",), (ROW,))
PAGES = {
    "three": render(evaluation(*THREE, epochs=EPOCHS, best_epoch=2, examined=EXAMINED)),
    "binary": render(evaluation(*BINARY, epochs=EPOCHS, best_epoch=2)),
    "numbers": render(evaluation(*NUMBERS, epochs=EPOCHS)),
    "one row": render(evaluation({"kind": "regression", "standardise": False}, [[1.0]], [1.0])),
    "one class": render(evaluation({"kind": "binary", "classes": ["a", "b"]}, [[1.0], [2.0]], [1.0, 1.0])),
    "no rows": render(Evaluation("p", (), evaluation(*BINARY).task, {}, "", None, epochs=EPOCHS)),
    "many": render(evaluation(*classes([f"class {place} {EVIL}" for place in range(200)], 3000))),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_page_is_whole_and_needs_nothing_else(page: str) -> None:
    parsed = Parsed(page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page.replace("/lake", ""))
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object"}
    assert all(source.startswith("data:image/") for source in parsed.values("src"))
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    [policy] = [attributes for _, attributes in parsed.tags if "http-equiv" in attributes]
    assert policy["content"] == (f"{POLICY}; img-src data:" if parsed.values("src") else POLICY)
    assert "nan" not in re.findall(r'"([^"]*)"', page)
    assert "\u202e" not in page
    assert "<script" not in page


def test_metrics_and_confusion_on_the_page_equal_scikit_learn() -> None:
    _, outputs, target = THREE
    parsed = Parsed(PAGES["three"])
    predicted = outputs.argmax(axis=1)
    assert f"accuracy {sklearn_metrics.accuracy_score(target, predicted):.4f} [" in parsed.words
    assert f"macro F1 {sklearn_metrics.f1_score(target, predicted, average='macro'):.4f}" in parsed.words
    confusion = sklearn_metrics.confusion_matrix(target, predicted)
    for name, counts in zip(("circle", EVIL[:23] + "…", r"\u202eturned"), confusion, strict=True):
        assert f"{name} {' '.join(map(str, counts))} {counts.sum()}" in parsed.words
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(target, predicted)
    row = re.search(r"F1 circle (\d+) (\d+) ", parsed.words)
    assert row is not None
    assert [int(row[1]), int(row[2])] == [support[0], (predicted == 0).sum()]
    figures = [float(text) for text in re.findall(r'<td class="num figure">([\d.]+) ', PAGES["three"])]
    assert figures == pytest.approx(np.stack([precision, recall, f1], axis=1).ravel().tolist(), abs=5e-4)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    [true, taken] = np.unravel_index(wrong.argmax(), wrong.shape)
    share = wrong[true, taken] / support[true]
    shown = ["circle", EVIL, r"\u202eturned"]
    assert f"of the class {shown[true]} {shown[taken]} {wrong[true, taken]} {share * 100:.1f} %" in parsed.words


def test_a_binary_page_draws_both_curves_and_calibration() -> None:
    parsed = Parsed(PAGES["binary"])
    auc = sklearn_metrics.roc_auc_score(EVENTS, LOGITS)
    assert f"Area {auc:.4f} [" in parsed.words
    assert f"Average precision {sklearn_metrics.average_precision_score(EVENTS, LOGITS):.4f}" in parsed.words
    labels = parsed.values("aria-label", "svg")
    for words in ("ROC curve: ", "Precision by recall", "Calibration: ", "Loss per row by epoch: training"):
        assert any(label.startswith(words) for label in labels), words
    titles = " ".join(parsed.pieces)
    point = np.array([EVENTS[LOGITS >= 0].sum() / EVENTS.sum(), (1 - EVENTS)[LOGITS >= 0].sum() / (1 - EVENTS).sum()])
    assert f"threshold 0.5: {point[1]:.3f}, {point[0]:.3f}" in titles
    assert "Most often confused" not in parsed.words


def test_numbers_are_shown_against_the_true_ones() -> None:
    _, outputs, target = NUMBERS
    parsed = Parsed(PAGES["numbers"])
    assert f"MAE {sklearn_metrics.mean_absolute_error(target, outputs[:, 0]):,.0f} [" in parsed.words
    drawn = sum(int(rows.replace(",", "")) for rows in re.findall(r"predicted [^:]*: ([\d,]+) rows", parsed.text))
    not_drawn = re.search(r"right\. (\d+) rows beyond the edges", parsed.words)
    assert drawn + int(not_drawn[1] if not_drawn else 0) == 300
    order = np.argsort(outputs[:, 0], kind="stable")[:30]
    assert f"30 {outputs[order, 0].mean():,.0f} {target[order].mean():,.0f}" in parsed.words
    assert "Confusion" not in parsed.words


def test_without_rows_the_page_says_so_and_shows_the_curves() -> None:
    words = Parsed(PAGES["no rows"]).words
    assert "set split.validation_share or split.test_share" in words
    assert "Loss per row" in words
    assert "Confusion" not in words


def test_many_classes_have_no_matrix_and_those_with_the_lowest_f1_are_listed() -> None:
    parsed = Parsed(PAGES["many"])
    assert "Confusion matrix" not in parsed.words
    assert "The 100 of 200 classes with the lowest F1." in parsed.words
    assert len(PAGES["many"]) < 400_000
    _, outputs, target = classes([str(place) for place in range(200)], 3000)
    scores = sklearn_metrics.f1_score(target, outputs.argmax(axis=1), average=None)
    listed = re.findall(r"class (\d+) <scr", parsed.text.split("lowest F1")[1])
    assert {int(name) for name in listed[:90]} <= set(np.argsort(scores, kind="stable")[:100].tolist())


def test_a_class_without_rows_has_no_figures() -> None:
    names = ["circle", "cross", "square"]
    words = Parsed(render(evaluation(*classes(names, absent=1)))).words
    assert "cross 0 0 none none none" in words
    assert "cross 0 0 0 0" in words  # of the matrix


def test_a_row_is_shown_with_its_pictures_and_greatest_contributions() -> None:
    parsed = Parsed(PAGES["three"])
    assert "row_id -42" in parsed.words
    assert len(parsed.values("src")) == 2
    assert re.findall(r"\bc\d+\b", parsed.words) == ["c11", "c10", "c9", "c8", "c7", "c6", "c5", "c4"]
    assert f"4 others {0 - 1 + 2 - 3:+.3f}" in parsed.words


@pytest.mark.parametrize(
    ("shape", "size", "is_enlarged", "kind"),
    [
        ((1, 28, 28), (112, 112), True, "png"),
        ((3, 300, 150), (64, 128), False, "jpeg"),
        ((4, 70, 70), (128, 128), False, "png"),
    ],
)
def test_pictures_are_enlarged_by_whole_factors_or_reduced(
    shape: tuple[int, ...], size: tuple[int, int], is_enlarged: bool, kind: str
) -> None:
    pixels = np.full(shape, 200, np.uint8)
    shown = row_pictures.shown(pixels, "words")
    assert ((shown.width, shown.height), shown.is_enlarged) == (size, is_enlarged)
    assert shown.source.startswith(f"data:image/{kind};base64,")
    with Image.open(io.BytesIO(base64.b64decode(shown.source.partition(",")[2]))) as picture:
        assert np.abs(np.asarray(picture).astype(int)[..., :3] - 200).max() <= 2


def test_a_map_is_laid_over_a_grey_picture() -> None:
    pixels = np.stack([np.full((2, 2), value, np.uint8) for value in (30, 60, 90)])
    heated = row_pictures.heated(pixels, np.array([[0.0, 1.0], [0.0, 0.0]]))
    assert heated[:, 0, 0].tolist() == [60, 60, 60]
    assert heated[:, 0, 1].tolist() == [round(0.25 * 60 + 0.75 * 255), round(0.25 * 60 + 0.75 * 70), 15]


def test_lines_break_at_values_that_are_not_there_and_axes_have_round_numbers() -> None:
    line = Series("loss", "line-a", [(1, 0.2), (2, float("nan")), (3, 0.0004), (4, 0.1)])
    plot = line_plot.lay_out("t", [line], x_name="epoch", whole_x=True)
    [drawn] = plot.series
    assert len(drawn.lines) == 1
    assert len(drawn.dots) == 3
    assert [mark.label for mark in plot.x_marks] == ["1", "2", "3", "4"]
    assert [mark.label for mark in plot.y_marks] == ["0", "0.05", "0.1", "0.15", "0.2"]
    assert [line_plot.label_of(value) for value in (0.01, 1e-4, 2e9, -1500.0)] == ["0.01", "1e-4", "2e9", "-1,500"]
    wide = line_plot.lay_out("t", [Series("x", "line-a", [(0, 0), (7e5, 1)])], x_name="x")
    edges = [(mark.at, len(mark.label) * 6.4) for mark in wide.x_marks]
    assert all(a + wa / 2 < b - wb / 2 for (a, wa), (b, wb) in itertools.pairwise(edges))
