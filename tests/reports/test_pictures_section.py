"""What a profile's page and its lines on a terminal say of pictures: whole HTML that holds the pictures itself."""

import base64
import io
from typing import Any

import pytest
from PIL import Image

from mlspark.features import drift
from mlspark.reports import picture_facts, profile_page
from mlspark.reports.profile_page import Version

from ..features.test_profile import made
from .test_profile_page import EVIL, OLD, POLICY, Parsed

FIRST, SECOND, BROKEN = "1" * 64, "2" * 64, "3" * 64


def _thumbnail(width: int, height: int, side: int = 64) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (min(width, side), min(height, side)), "red").save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return {"media_type": "image/png", "data": data, "width": width, "height": height}


THUMBNAILS = {FIRST: _thumbnail(28, 28), SECOND: _thumbnail(640, 320)}


def pictures(values: dict[str, list[int]], **others: Any) -> dict[str, Any]:
    """The record of a table of four rows with pictures."""
    record = made(
        {
            "photo": ("binary", [b"1", b"2", b"3", None]),
            "photo.format": ("string", ["png", "png", "jpeg", None]),
            "photo.mode": ("string", ["RGB", "RGB", "RGB", None]),
            "photo.orientation": ("string", ["1", "6", "1", None]),
            "photo.width": ("int", [28, 28, 640, None]),
            "photo.height": ("int", [28, 28, 320, None]),
            "photo.size": ("string", ["28 x 28", "28 x 28", "640 x 320", None]),
            "photo.bytes": ("int", [100, 200, 3000, None]),
            "photo.brightness": ("double", [10.0, 20.0, 90.5, None]),
            "rich": ("string", ["yes", "no", "yes", "no"]),
        },
        events=2,
    )
    for name in record["columns"]:
        if "." in name:
            record["columns"][name]["of"] = "photo"
    same = {"rows": 3, "different": 2, "repeated": 1, "on_several_sides": 1}
    example = {"key": FIRST, "rows": 2, "sides": ["test", "train"], "files": ["/a.zip", EVIL], "contents": [FIRST]}
    record["columns"]["photo"]["pictures"] = {
        "decoded": 3,
        "unreadable": 0,
        "values": values,
        "samples": {"yes": [FIRST, SECOND], EVIL: [SECOND]},
        "duplicates": {"same": {**same, "examples": [example]}},
        "refused": {
            "rows": {"media.decodes": 12, "media.bytes": 1},
            "examples": [
                {
                    "rule": "media.decodes", "what": f"jpeg: {EVIL}", "sha256": BROKEN, "bytes": 1234, "rows": 12,
                    "file": "/a.zip",
                },
                {"rule": "media.bytes", "what": "no byte", "sha256": None, "bytes": None, "rows": 1, "file": None},
            ],
        },
        **others,
    }  # fmt: skip
    return record


def _values(start: int, is_grey: bool = False) -> dict[str, list[int]]:
    found = {}
    for place, name in enumerate(("grey", "red", "green", "blue")):
        values = [0] * 256
        values[start + (0 if is_grey else place)] = 1000
        found[name] = values
    return found


COLOURED = pictures(_values(10))
MOVED = pictures(_values(200))


def alone(record: dict[str, Any], thumbnails: dict[str, Any] = THUMBNAILS) -> Parsed:
    return Parsed(profile_page.render("people", "/lake", Version(7, record, thumbnails)))


def compared(old: dict[str, Any], new: dict[str, Any]) -> Parsed:
    versions = Version(3, old), Version(7, new, THUMBNAILS)
    comparison = drift.compare(old, new)
    return Parsed(profile_page.render("people", "/lake", versions[1], against=versions[0], comparison=comparison))


def test_page_holds_the_pictures_itself_and_says_what_they_are() -> None:
    page = alone(COLOURED)
    sources, alts = page.values("src", "img"), page.values("alt", "img")
    assert len(sources) == len(alts) == 4  # three samples, one repeated
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))).size == (28, 28)
    assert alts[:2] == ["yes, 28 x 28, SHA-256 111111111111", "yes, 640 x 320, SHA-256 222222222222"]
    sizes = list(zip(page.values("width", "img"), page.values("height", "img"), strict=True))
    assert sizes[:2] == [("56", "56"), ("64", "32")]
    [policy] = [attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs]
    assert policy == f"{POLICY}; img-src data:"
    assert "<script" not in "".join(f"<{tag}" for tag, _ in page.tags)


def test_page_says_what_the_pictures_are_repeated_and_refused() -> None:
    words = alone(COLOURED).words
    for part in (
        "Pictures of photo",
        "Pictures 3",
        "Format png 66.7 %, jpeg 33.3 %",
        "Mode RGB",
        "Width x height 28 x 28 to 640 x 320, median 28 x 28, 2 different",
        "Bytes of a file 100 to 3,000, median 200",
        "Brightness, 0 to 255 10 to 90.50, median 20",
        "Turned by EXIF 1 (33.3 %)",
        "Same bytes 1 repeated, 1 on several sides of the split",
        "Alike not counted",
        "Refused 13 (media.decodes 12, media.bytes 1)",
        "2 rows with the same bytes sides of the split: test, train /a.zip",
        f"12 rows: media.decodes jpeg: {EVIL} /a.zip 1,234 bytes, SHA-256 333333333333",
        "media.bytes no byte",
        "Columns 2",
    ):
        assert part in words
    unseen = [attrs for tag, attrs in alone(COLOURED).tags if attrs.get("class") == "unseen"]
    assert [attrs["aria-label"] for attrs in unseen] == ["cannot be shown"] * 2


@pytest.mark.parametrize(
    ("samples", "classes", "words"),
    [
        ({"": [FIRST]}, {}, "of all; the same"),
        ({"a": [FIRST], "b": []}, {"a": 3, "b": 1}, "of each class; the same"),
        ({"a": [FIRST]}, {"a": 3, "b": 1}, "of 1 of 2 classes, the commonest; the same"),
    ],
)
def test_samples_say_of_what_they_are(samples: dict[str, list[str]], classes: dict[str, int], words: str) -> None:
    record = pictures(_values(10), samples=samples)
    target = {"column": "rich", "kind": "multiclass", "classes": classes}
    assert f"The first ones by SHA-256 {words} in every run." in alone({**record, "target": target}).words


def test_values_are_drawn_for_each_channel_and_once_for_grey_pictures() -> None:
    def drawn(page: Parsed) -> list[str]:
        labels = [
            attrs.get("aria-label") or ""
            for tag, attrs in page.tags
            if tag == "svg" and "plot" in (attrs.get("class") or "")
        ]
        return [label for label in labels if label.startswith("Histogram of photo, ")]

    assert [label.split(":")[0] for label in drawn(alone(COLOURED))] == [
        f"Histogram of photo, {name}" for name in ("grey", "red", "green", "blue")
    ]
    assert len(drawn(alone(pictures(_values(10, is_grey=True))))) == 1
    assert drawn(alone(pictures(_values(10) | dict.fromkeys(("grey", "red", "green", "blue"), [0] * 256)))) == []
    page = compared(COLOURED, MOVED)
    assert len(drawn(page)) == 4
    assert page.words.count("JS distance 1.000") == 4


@pytest.mark.parametrize(("old", "new"), [(COLOURED, MOVED), (OLD, COLOURED), (COLOURED, OLD)])
def test_versions_with_and_without_pictures_are_compared(old: dict[str, Any], new: dict[str, Any]) -> None:
    page = compared(old, new)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert all(link.removeprefix("#") in ids for link in page.values("href"))
    assert ("Pictures of photo" in page.words) == ("photo" in new["columns"])


def test_a_line_for_the_terminal_has_the_main_figures() -> None:
    assert picture_facts.line(COLOURED, "photo") == (
        "photo: 3 pictures; png 66.7 %, jpeg 33.3 %; 28 x 28 to 640 x 320, median 28 x 28, 2 different; "
        "brightness 10 to 90.50, median 20; same bytes 1 repeated, 1 on several sides of the split; "
        "refused 13 (media.decodes 12, media.bytes 1)"
    )
    nothing = made({"photo": ("binary", [None])})
    nothing["columns"]["photo"]["pictures"] = COLOURED["columns"]["photo"]["pictures"] | {
        "decoded": 0, "samples": {}, "duplicates": {}, "refused": {"rows": {}, "examples": []},
        "values": dict.fromkeys(("grey", "red", "green", "blue"), [0] * 256),
    }  # fmt: skip
    assert picture_facts.line(nothing, "photo").startswith("photo: 0 pictures; none; ")
    assert alone(nothing, {}).words
    part = pictures(_values(10), decoded=1, unreadable=1)
    assert picture_facts.facts(part, "photo")["Pictures"] == "3 (1 unreadable, values of 1)"
