"""The part of a profile's page that shows pictures: samples, values, repeated and refused ones. Runs anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlspark.reports import picture_facts
from mlspark.reports.histogram import Bar, Histogram
from mlspark.reports.histogram_plot import HistogramPlot, lay_out
from mlspark.reports.profile_summary import SummaryRow
from mlspark.reports.wording import count, visible

SHOWN_SIDE = 64
"""Longest side of a picture on the page; those of up to half of it are enlarged by a whole factor."""

_NUM_BARS = 32
_TICKS = (0, 64, 128, 192, 256)
_NUM_VALUES = 256

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """A picture on the page, or the place of one that cannot be shown."""

    source: str
    """The picture itself, as a data: address; empty where there is none."""
    width: int
    height: int
    words: str
    """What it is, for those who do not see it and on pointing at it."""
    is_enlarged: bool = False
    """Whether each of its pixels is shown as a square of several."""


@dataclass(frozen=True)
class Samples:
    """Pictures of a class."""

    name: str
    """The class; empty where the task has none."""
    pictures: tuple[Shown, ...]


@dataclass(frozen=True)
class Channel:
    """How often each value is in a channel."""

    name: str
    plot: HistogramPlot
    note: str


@dataclass(frozen=True)
class Captioned:
    """Pictures with words beside them."""

    pictures: tuple[Shown, ...]
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class PicturesSection:
    """All that is shown of the pictures of a column."""

    name: str
    facts: tuple[SummaryRow, ...]
    samples: tuple[Samples, ...]
    samples_note: str
    """Which pictures they are."""
    channels: tuple[Channel, ...]
    repeated: tuple[Captioned, ...]
    refused: tuple[Captioned, ...]


def sections(
    records: Sequence[Record], thumbnails: Mapping[str, Any], versions: Sequence[str], comparison: Record | None
) -> list[PicturesSection]:
    """Return what is shown of each column of pictures of the newest version.

    Args:
        records: profiles of one version, or of two, the older first.
        thumbnails: of the newest, SHA-256 -> thumbnail; see `mlspark.features.picture_profile`.
        versions: their names.
        comparison: of the two, by `mlspark.features.drift.compare`.
    """
    return [_section(name, records, thumbnails, versions, comparison) for name in picture_facts.columns(records[-1])]


def _section(
    name: str,
    records: Sequence[Record],
    thumbnails: Mapping[str, Any],
    versions: Sequence[str],
    comparison: Record | None,
) -> PicturesSection:
    pictures = records[-1]["columns"][name]["pictures"]
    of_versions = [
        picture_facts.facts(record, name) if name in picture_facts.columns(record) else {} for record in records
    ]
    return PicturesSection(
        name,
        facts=tuple(
            SummaryRow(title, tuple(facts.get(title, "") for facts in of_versions)) for title in of_versions[-1]
        ),
        samples=tuple(
            Samples(class_, tuple(_shown(digest, thumbnails, class_) for digest in digests))
            for class_, digests in pictures["samples"].items()
        ),
        samples_note=_note(pictures["samples"], records[-1]["target"].get("classes", {})),
        channels=tuple(_channels(name, records, versions, comparison)),
        repeated=tuple(_repeated(pictures["duplicates"], thumbnails)),
        refused=tuple(_refused(example, thumbnails) for example in pictures["refused"]["examples"]),
    )


def _note(samples: Mapping[str, Any], classes: Mapping[str, int]) -> str:
    of = "all" if set(samples) == {""} else "each class"
    if len(classes) > len(samples):
        of = f"{len(samples)} of {count(len(classes))} classes, the commonest"
    return f"The first ones by SHA-256 of {of}; the same in every run."


def _shown(digest: str | None, thumbnails: Mapping[str, Any], what: str) -> Shown:
    made = thumbnails.get(digest or "")
    if made is None:
        return Shown("", SHOWN_SIDE, SHOWN_SIDE, "cannot be shown")
    longest = max(made["width"], made["height"])
    is_enlarged = longest <= SHOWN_SIDE // 2
    factor = SHOWN_SIDE // longest if is_enlarged else SHOWN_SIDE / longest
    width, height = (max(1, round(side * factor)) for side in (made["width"], made["height"]))
    words = f"{made['width']} x {made['height']}, SHA-256 {str(digest)[:12]}"
    source = f"data:{made['media_type']};base64,{made['data']}"
    return Shown(source, width, height, f"{visible(what)}, {words}" if what else words, is_enlarged)


def _channels(
    name: str, records: Sequence[Record], versions: Sequence[str], comparison: Record | None
) -> Iterator[Channel]:
    """Yield how often each value is; of grey pictures alone once."""
    values = [record["columns"].get(name, {}).get("pictures", {}).get("values") for record in records]
    present = [of_version for of_version in values if of_version and any(of_version["grey"])]
    if not present:
        return
    is_grey = all(of_version["red"] == of_version["green"] == of_version["blue"] for of_version in present)
    distances = (comparison or {"columns": {}})["columns"].get(name, {}).get("channels", {})
    for channel in ("grey",) if is_grey else present[-1]:
        bars = _bars([of_version[channel] if of_version else [0] * _NUM_VALUES for of_version in values])
        note = f"JS distance {distances[channel]:.3f}" if channel in distances else ""
        yield Channel(channel, lay_out(bars, f"{name}, {channel}", versions), note)


def _bars(versions: Sequence[Sequence[int]]) -> Histogram:
    totals = [max(sum(values), 1) for values in versions]
    width = _NUM_VALUES // _NUM_BARS
    bars = []
    for first in range(0, _NUM_VALUES, width):
        shares = (sum(values[first : first + width]) / total for values, total in zip(versions, totals, strict=True))
        bars.append(Bar(f"{first}-{first + width - 1}", first, first + width, tuple(shares)))
    ticks = tuple((str(min(tick, _NUM_VALUES - 1)), tick / width) for tick in _TICKS)
    return Histogram(tuple(bars), "", ticks)


def _repeated(duplicates: Mapping[str, Any], thumbnails: Mapping[str, Any]) -> Iterator[Captioned]:
    kinds = {"same": ("rows with the same bytes", ""), "alike": ("pictures that look alike", "alike")}
    for kind, counts in duplicates.items():
        words, what = kinds[kind]
        for example in counts["examples"]:
            sides = "sides" if len(example["sides"]) > 1 else "side"
            yield Captioned(
                tuple(_shown(digest, thumbnails, what) for digest in example["contents"]),
                f"{count(example['rows'])} {words}",
                (f"{sides} of the split: {', '.join(example['sides'])}", *example["files"]),
            )


def _refused(example: Record, thumbnails: Mapping[str, Any]) -> Captioned:
    lines = [example["what"], example["file"] or ""]
    if example["sha256"]:
        lines.append(f"{count(example['bytes'])} bytes, SHA-256 {example['sha256'][:12]}")
    rows = f"{count(example['rows'])} rows: " if example["rows"] > 1 else ""
    picture = _shown(example["sha256"], thumbnails, "refused")
    return Captioned((picture,), f"{rows}{example['rule']}", tuple(line for line in lines if line))
