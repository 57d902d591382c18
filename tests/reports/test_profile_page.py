"""The page of a profile: whole HTML, nothing from elsewhere, data shown as text, whatever the record holds."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlspark.features import drift
from mlspark.reports import profile_page
from mlspark.reports.histogram import histogram
from mlspark.reports.profile_page import Version
from mlspark.reports.wording import percent, quantity, visible

from ..features.test_profile import made

EVIL = '<script>alert("1")</script>'


class Parsed(HTMLParser):
    """A page's tags, with a check that each is closed in turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "col", "img", "br"):  # never closed in HTML
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def words(self) -> str:
        """The text of the page, a blank between any two elements and words."""
        return " ".join(" ".join(self.pieces).split())

    def values(self, attribute: str, tag: str = "") -> list[str]:
        found = (attrs.get(attribute) for name, attrs in self.tags if tag in ("", name))
        return [value for value in found if value is not None]


OLD = made(
    {
        "age": ("int", [*range(100)]),
        "wage": ("double", [number * 0.37 for number in range(99)] + [None]),
        "job": ("string", ["a"] * 50 + [EVIL] * 30 + [None] * 20),
        "born": ("date", [19000 + number for number in range(100)]),
        "seen": ("timestamp", [19000 + number / 7 for number in range(100)]),
        "face": ("array<float>", [1.0] * 90 + [None] * 10),
        "gone": ("string", ["x"] * 100),
        "was": ("string", ["x"] * 100),
    },
    events=25,
)
NEW = made(
    {
        "age": ("int", [*range(50, 150)]),
        "wage": ("double", [None] * 100),
        "job": ("string", [EVIL] * 30 + [""] * 10 + ["\u202eturned"] * 10 + ['" onclick="'] * 10 + ["x" * 500] * 40),
        "born": ("date", [10_000_000 + number for number in range(100)]),
        "seen": ("timestamp", [19000.0] * 100),
        "face": ("array<float>", [1.0] * 100),
        "came": ("string", [None] * 100),
        "was": ("int", [1] * 100),
    },
    events=50,
)
NEW["splits"] = {"train": {"rows": 90, "events": 45}, "<b>": {"rows": 10, "events": 5}}


def compared(old: dict[str, Any], new: dict[str, Any]) -> str:
    comparison = drift.compare(old, new)
    return profile_page.render(
        "people", "/lake/people", Version(7, new), against=Version(3, old), comparison=comparison
    )


def alone(record: dict[str, Any]) -> str:
    return profile_page.render("people", "/lake/people", Version(7, record))


@pytest.mark.parametrize("page", [alone(OLD), alone(NEW), compared(OLD, NEW), compared(NEW, OLD)])
def test_page_is_whole_and_needs_nothing_else(page: str) -> None:
    parsed = Parsed(page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page.replace("/lake", ""))
    assert {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object"} == set()
    assert parsed.values("src") == []
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert all(link.removeprefix("#") in ids for link in parsed.values("href"))
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]
    assert page.count("<title>") >= 1


POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize("page", [alone(OLD), compared(OLD, NEW)])
def test_page_forbids_its_browser_scripts_and_requests_before_anything_else(page: str) -> None:
    parsed = Parsed(page)
    [policy] = [place for place, (_, attrs) in enumerate(parsed.tags) if "http-equiv" in attrs]
    assert parsed.tags[policy] == ("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    assert {tag for tag, _ in parsed.tags[:policy]} == {"html", "head", "meta"}


def test_every_page_is_built_on_the_base_page() -> None:
    folder = Path(profile_page.__file__).with_name("templates")
    pages = [
        file for file in folder.glob("*.html.jinja") if "macros" not in file.name and file.name != "base.html.jinja"
    ]
    assert pages
    for file in (folder / "base.html.jinja", *folder.glob("*.jinja")):
        assert "autoescape" not in file.read_text()
    assert all(file.read_text().startswith('{% extends "base.html.jinja" %}\n') for file in pages)


@pytest.mark.parametrize("page", [alone(OLD), compared(OLD, NEW)])
def test_plots_say_in_words_what_they_show(page: str) -> None:
    plots = [attrs for tag, attrs in Parsed(page).tags if tag == "svg" and attrs.get("class") == "plot"]
    assert len(plots) == 4
    assert all(attrs["role"] == "img" and (attrs["aria-label"] or "").startswith("Histogram of ") for attrs in plots)


def test_values_of_the_data_are_text() -> None:
    page = compared(OLD, NEW)
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in page
    assert "\u202e" not in page
    shown = Parsed(page).text
    assert r"\u202eturned" in shown
    assert "x" * 500 not in shown
    assert "empty" in shown
    assert "Split <b>: rows (label rate)" in shown


def test_one_version_is_listed_by_missing_values() -> None:
    parsed = Parsed(alone(OLD))
    links = parsed.values("href", "a")
    assert links[:4] == ["#column-job", "#column-face", "#column-wage", "#column-age"]
    assert "people: profile of version 7" in parsed.text
    assert "20.0 % missing (20 rows)" in parsed.text
    for number in ("100", "25.00 %"):
        assert number in parsed.text


def test_drift_is_listed_gravest_first() -> None:
    parsed = Parsed(compared(OLD, NEW))
    links = [link.removeprefix("#column-") for link in parsed.values("href", "a")]
    assert links == ["came", "gone", *(name for name, _ in drift.gravest_first(drift.compare(OLD, NEW)))]
    assert links[2] == "was"
    for part in (
        "people: version 7 against 3",
        "+25.00 points",
        "1 added, 1 removed",
        "unseen",
        "type was string, is int",
    ):
        assert part in parsed.text


def of_task(record: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """The record of another task than a binary one: no events anywhere."""
    columns = {name: dict(column) for name, column in record["columns"].items()}
    for column in columns.values():
        column.pop("nulls_events", None)
        if "values" in column:
            column["values"] = [[value, rows, None] for value, rows, _ in column["values"]]
    return {key: value for key, value in record.items() if key != "events"} | {"target": target, "columns": columns}


FLOWERS = made({"width": ("double", [0.5, 1.5, 2.5, 3.5]), "kind": ("string", ["iris", "rose", "rose", None])})
FLOWERS["splits"] = {"train": {"rows": 3}, "test": {"rows": 1}}
MULTICLASS = {"column": "kind", "kind": "multiclass"}
REGRESSION = {"column": "width", "kind": "regression", "event": None}


def test_several_classes_are_shown_by_their_rows_and_without_a_label_rate() -> None:
    classes = {"rose": 2, "<iris>": 1, "lily": 0}
    record = of_task(FLOWERS, {**MULTICLASS, "classes": classes})
    for page in (alone(record), compared(record, record)):
        words = Parsed(page).words
        assert "Target (kind) multiclass, 3 classes" in words
        assert "Classes of kind Categories of kind value rows" in words
        assert "rose 50.0 %" in words
        assert "<iris> 25.0 %" in words
        assert "lily 0 %" in words
        assert "Split train: rows 3" in words
        assert "label rate" not in words.lower()
    assert "Target (kind) multiclass, 2 classes" in Parsed(alone(of_task(FLOWERS, MULTICLASS))).words


def test_a_number_to_predict_is_shown_by_its_mean_and_median() -> None:
    record = of_task(FLOWERS, REGRESSION)
    for page in (alone(record), compared(record, record)):
        words = Parsed(page).words
        assert "Target (width) regression, mean 2, median 2" in words
        assert "label rate" not in words.lower()
    assert "binary, 0.00 %" in Parsed(compared(made({"width": ("double", [1.0])}), record)).text


def test_bars_hold_all_values_but_the_tails_that_are_noted() -> None:
    columns = [OLD["columns"]["wage"], OLD["columns"]["age"], OLD["columns"]["seen"]]
    for column in columns:
        drawn = histogram([column])
        assert len(drawn.bars) in range(10, 31)
        tails = [float(share) / 100 for share in re.findall(r": ([0-9.]+) %", drawn.note)]
        assert sum(bar.shares[0] for bar in drawn.bars) + sum(tails) == pytest.approx(1, abs=0.001)
        assert all(share <= 0.0102 for share in tails)
    few = made({"x": ("double", [0.5, 0.5, 7.25, 100.0])})["columns"]["x"]
    drawn = histogram([few])
    assert [(bar.label, bar.shares) for bar in drawn.bars] == [
        ("0.5000", (0.5,)), ("7.250", (0.25,)), ("100", (0.25,))
    ]  # fmt: skip
    whole = made({"x": ("int", [1, 1, 3, 1])})["columns"]["x"]
    assert [bar.shares for bar in histogram([whole]).bars] == [(0.75,), (0,), (0.25,)]


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("int", 1234567.0, "1,234,567"),
        ("double", 0.0, "0"),
        ("double", -1234.567, "-1,235"),
        ("double", 0.012346, "0.01235"),
        ("double", 1e-9, "1.000e-09"),
        ("double", -1e300, "-1.000e+300"),
        ("date", -1.0, "1969-12-31"),
        ("timestamp", 0.75, "1970-01-01 18:00"),
        ("date", 1e12, "day 1,000,000,000,000"),
    ],
)
def test_quantities_are_written_for_people(type_: str, value: float, expected: str) -> None:
    assert quantity({"type": type_}, value) == expected


def test_shares_of_nought_and_one_are_exact() -> None:
    shares = (0, 1, 0.5, 0.0001, 0.99999)
    assert [percent(share) for share in shares] == ["0 %", "100 %", "50.0 %", "0.01 %", "100.0 %"]


def test_what_cannot_be_seen_is_shown_as_its_code() -> None:
    assert visible("a\x00\u202e\n\ud800\u00e9") == "a\\x00\\u202e\\n\\ud800\u00e9"
    assert visible("x" * 100, limit=3) == "xx\u2026"


doubles = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60)
wholes = st.lists(st.integers(-(2**63), 2**63 - 1).map(float), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(doubles, doubles, wholes, st.sampled_from(["double", "timestamp"]), st.sampled_from(["bigint", "date"]))
def test_any_numbers_can_be_drawn(
    old: list[float], new: list[float], whole: list[float], type_: str, whole_type: str
) -> None:
    rows = min(len(old), len(new), len(whole))
    records = [
        made({"x": (type_, [value / 100 for value in side[:rows]]), "n": (whole_type, whole[:rows])})
        for side in (old, new)
    ]
    # What numpy could not average is of no interest here.
    records = [
        json.loads(json.dumps(record).replace("Infinity", "1e308").replace("NaN", "1e308")) for record in records
    ]
    for page in (alone(records[0]), compared(*records)):
        Parsed(page)
        assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).replace("nance", "")
