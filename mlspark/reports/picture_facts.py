"""What a profile's record says of a column of pictures, in words. Runs anywhere."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlspark.reports.wording import count, percent, quantity, visible

Record = Mapping[str, Any]

_MAX_NAMED = 4


def columns(record: Record) -> list[str]:
    """Return the columns of pictures of a profile."""
    return [name for name, column in record["columns"].items() if "pictures" in column]


def facts(record: Record, name: str) -> dict[str, str]:
    """Return title -> what is to be said of the pictures of a column; the same titles for every column and version."""
    column = record["columns"][name]
    pictures, num_pictures = column["pictures"], column["count"]
    refused = pictures["refused"]["rows"]
    return {
        "Pictures": count(num_pictures) + _partly(column),
        "Format": _shares(record, f"{name}.format", num_pictures),
        "Mode": _shares(record, f"{name}.mode", num_pictures),
        "Width x height": _size(record, name),
        "Bytes of a file": _range(record["columns"].get(f"{name}.bytes")),
        "Brightness, 0 to 255": _range(record["columns"].get(f"{name}.brightness")),
        "Turned by EXIF": _turned(record["columns"].get(f"{name}.orientation"), num_pictures),
        "Same bytes": _repeated(pictures["duplicates"].get("same")),
        "Alike": _repeated(pictures["duplicates"].get("alike")),
        "Refused": f"{count(sum(refused.values()))} ({', '.join(_by_rule(refused))})" if refused else "none",
    }


def line(record: Record, name: str) -> str:
    """Return the main ones of `facts` in a line."""
    found = facts(record, name)
    parts = [f"{found['Pictures']} pictures", found["Format"], found["Width x height"]]
    parts += [
        f"{words} {found[title]}" for words, title in _IN_A_LINE.items() if found[title] not in ("", "not counted")
    ]
    return f"{name}: {'; '.join(part for part in parts if part)}"


_IN_A_LINE = {
    "brightness": "Brightness, 0 to 255",
    "same bytes": "Same bytes",
    "alike": "Alike",
    "refused": "Refused",
}


def _partly(column: Record) -> str:
    pictures = column["pictures"]
    notes = [f"{count(pictures['unreadable'])} unreadable"] if pictures["unreadable"] else []
    if pictures["decoded"] + pictures["unreadable"] < column["count"]:
        notes.append(f"values of {count(pictures['decoded'])}")
    return f" ({', '.join(notes)})" if notes else ""


def _shares(record: Record, name: str, num_pictures: int) -> str:
    text = record["columns"].get(name, {"count": 0})
    if not text["count"]:
        return "none"
    named = [f"{visible(value)} {percent(rows / num_pictures)}" for value, rows, _ in text["values"][:_MAX_NAMED]]
    if text["distinct"] == 1 and text["count"] == num_pictures:
        return visible(text["values"][0][0])
    others = text["distinct"] - len(named)
    return ", ".join([*named, *([f"{others} others"] if others else [])])


def _size(record: Record, name: str) -> str:
    sizes = record["columns"].get(f"{name}.size", {"count": 0})
    if not sizes["count"]:
        return "none"
    if sizes["distinct"] == 1:
        return str(sizes["values"][0][0])
    sides = [record["columns"][f"{name}.{side}"] for side in ("width", "height")]
    ends = (" x ".join(quantity(side, side["quantiles"][end]) for side in sides) for end in ("0", "50", "100"))
    least, median, greatest = ends
    return f"{least} to {greatest}, median {median}, {count(sizes['distinct'])} different"


def _range(number: Record | None) -> str:
    if not number or not number["count"]:
        return "none"
    least, median, greatest = (quantity(number, number["quantiles"][end]) for end in ("0", "50", "100"))
    return f"{least} to {greatest}, median {median}"


def _turned(orientations: Record | None, num_pictures: int) -> str:
    if not orientations or not orientations["count"]:
        return "none"
    straight = sum(rows for value, rows, _ in orientations["values"] if value == "1")
    turned = orientations["count"] - straight
    return f"{count(turned)} ({percent(turned / num_pictures)})" if turned else "none"


def _repeated(counts: Record | None) -> str:
    if not counts:
        return "not counted"
    if not counts["repeated"]:
        return "none repeated"
    sides = f", {count(counts['on_several_sides'])} on several sides of the split" if counts["on_several_sides"] else ""
    return f"{count(counts['repeated'])} repeated{sides}"


def _by_rule(refused: Mapping[str, int]) -> Iterator[str]:
    for rule, rows in sorted(refused.items(), key=lambda item: (-item[1], item[0])):
        yield f"{visible(rule)} {count(rows)}"
