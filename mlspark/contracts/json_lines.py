"""Lines of a JSON text: where each value stands, for messages about it. Runs anywhere."""

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]

Path = tuple[int | str, ...]

_WHITE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"[^\s,\]}]+")


def lines_of(text: str) -> dict[Path, int]:
    """Return path -> line, from 1, of each value; of a value in an object the line of its key.

    Raises:
        ValueError: the text is not JSON, or an object has a key twice (the second would win in silence); says where.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("not JSON of a contract: nested too deeply") from None
    lines: dict[Path, int] = {(): 1}
    _read(text, _WHITE.match(text, 0).end(), (), lines)  # type: ignore[union-attr]  # matches always
    return lines


def _read(text: str, at: int, path: Path, lines: dict[Path, int]) -> int:
    """Note the lines of what is in the value at `at`, and return where it ends."""
    if text[at] == '"':
        return int(scanstring(text, at + 1)[1])
    if text[at] not in "{[":
        return _SCALAR.match(text, at).end()  # type: ignore[union-attr]  # it was parsed
    is_object, place, at = text[at] == "{", 0, _after_white(text, at + 1)
    while text[at] not in "}]":
        key: int | str = place
        line = text.count("\n", 0, at) + 1
        if is_object:
            key, at = scanstring(text, at + 1)
            at = _after_white(text, _after_white(text, at) + 1)
        inside = (*path, key)
        if inside in lines:
            raise ValueError(f"line {line}: key {key!r} is given twice, first in line {lines[inside]}")
        lines[inside] = line
        at = _after_white(text, _read(text, at, inside, lines))
        if text[at] == ",":
            at = _after_white(text, at + 1)
        place += 1
    return at + 1


def _after_white(text: str, at: int) -> int:
    return _WHITE.match(text, at).end()  # type: ignore[union-attr]  # matches always
