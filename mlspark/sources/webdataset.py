"""WebDataset's naming: the files of one key, one after the other in an archive, are a row. Executors and driver."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from pyspark.sql.types import BinaryType, LongType, StringType, StructField, StructType

from mlspark.contracts.own_columns import MALFORMED
from mlspark.sources.members import NO_BYTE, Member
from mlspark.sources.picture_settings import OFFERED, said_by

KEY, _PLACE = "key", "place"
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_TEXTS = ("txt", "text", "transcript", "caption", "json", "jsn")
_VALUES = ("cls", "cls2", "class", "count", "index", "inx", "id")
"""Extensions of text, as it stands there, and of one value, without the blanks around it."""


def key_of(name: str) -> tuple[str, str] | None:
    """Return (key, extension in small letters): the extension begins at the first dot; None for a name without either."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], match[2].lower())


def is_text(extension: str) -> bool:
    """Return whether a column of this extension is text; it is the last part that counts."""
    return extension.rsplit(".", 1)[-1] in (*_TEXTS, *_VALUES)


def extensions(names: Iterable[str]) -> list[str]:
    """Return the extensions of some names, in the order in which they appear; `key` and `place` are other columns."""
    found = dict.fromkeys(split[1] for name in names if (split := key_of(name)) is not None)
    return [extension for extension in found if extension not in (KEY, _PLACE)]


def schema(wanted: Sequence[str], groups: Sequence[str]) -> StructType:
    """Return key, place (of the key's first file), a column for each extension, and the groups of a pattern."""
    fields = [StructField(KEY, StringType(), metadata=OFFERED), StructField(_PLACE, LongType(), metadata=OFFERED)]
    fields += [StructField(name, StringType() if is_text(name) else BinaryType()) for name in wanted]
    return StructType([*fields, *(StructField(name, StringType()) for name in groups)])


class Keys:
    """Keys as their files come by: which of them come again after others."""

    def __init__(self) -> None:
        self.repeated: set[str] = set()
        self._hashes: set[int] = set()  # of a million keys, less than the keys
        self._last: object = None

    def begins(self, name: str) -> bool:
        """Return whether a file is the first one of its key, or of none."""
        split = key_of(name)
        key = name if split is None else split[0]
        if split is None or key == self._last:
            is_first, self._last = key != self._last, key
            return is_first
        self._last = key
        if hash(key) in self._hashes:
            self.repeated.add(key)
        self._hashes.add(hash(key))
        return True


def rows(
    members: Iterable[Member], wanted: Sequence[str], repeated: frozenset[str], pattern: str
) -> Iterator[dict[str, Any]]:
    """Yield a row for each key: its files by extension, those of text as text; without those that nobody wants.

    A row is bad when a file of its key cannot be read, an extension comes twice, or the key is among `repeated`, whose
    files stand in several places. A file whose name has no extension is a bad row of its own.
    """
    for _, group in groupby(members, key=_group):
        row: dict[str, Any] = {}
        problems: list[str] = []
        seen: set[str] = set()
        for member in group:
            split = key_of(member.name)
            row.setdefault(KEY, (split[0] if split else member.name) or None)
            row.setdefault(_PLACE, member.place)
            if split is None:
                problems.append(member.problem or "name without an extension, so it is of no key")
                continue
            extension = split[1]
            if extension in seen:
                problems.append(f"{extension}: twice")
            seen.add(extension)
            if member.problem is not None:
                problems.append(f"{extension}: {member.problem}")
            elif extension in wanted and member.content == b"" and not is_text(extension):
                problems.append(f"{extension}: {NO_BYTE}")
            elif extension in wanted and member.content is not None:
                try:
                    row[extension] = _value(member.content, extension)
                except UnicodeDecodeError:
                    problems.append(f"{extension}: not UTF-8")
        if row[KEY] in repeated:
            problems.insert(0, "files of this key do not stand one after the other: write the archive sorted by name")
        if row[KEY] is not None and pattern:
            groups = said_by(row[KEY], pattern)
            row |= {name: value for name, value in groups.items() if name not in row}
        yield {**row, MALFORMED: "; ".join(problems) or None}


def _group(member: Member) -> tuple[str, int]:
    """Return what the files of a row have in common; a file without a key has nothing."""
    split = key_of(member.name)
    return (split[0], -1) if split is not None else ("", member.place)


def _value(content: bytes, extension: str) -> bytes | str:
    if not is_text(extension):
        return content
    text = content.decode()
    return text.strip() if extension.rsplit(".", 1)[-1] in _VALUES else text
