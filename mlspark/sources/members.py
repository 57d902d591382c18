"""Members of archives, one after the other, each whole or with what is wrong with it. Executors and driver."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from mlspark.errors import one_line

Content = Callable[[], bytes]
"""Reads the content of a member; raises `Unreadable` saying why it cannot."""


NO_BYTE = "no byte"
"""What is wrong with a picture's file that is empty."""


class Unreadable(Exception):
    """What is wrong with one member; becomes the reason of its row."""


@dataclass(frozen=True)
class Member:
    """A member of an archive, or, with a problem and no content, a part of it that is none."""

    name: str
    """Whole name in the archive; empty for what has none, as a tail that is cut off."""
    place: int
    """Its number in the archive, from 0, those that are no files counted too."""
    content: bytes | None
    problem: str | None = None


@dataclass(frozen=True)
class Span:
    """Members of an archive that one task reads."""

    start: int
    """Byte where they begin: of a tar's first header, of a zip's first entry in its directory."""
    end: int
    """Byte after them."""
    first: int
    """Number of the first one in the archive."""
    is_last: bool
    """Whether the archive's end is among them."""


@dataclass(frozen=True)
class Archive:
    """An open archive of one format, as `zip_members` and `tar_members` read it."""

    file: IO[bytes]
    size: int
    max_bytes: int
    """Most bytes of a member; a larger one is not read."""
    reads: bool = True
    """Whether contents are read; without, members have names and places only."""

    def member(self, name: str, place: int, size: int, content: Content, problem: str | None = None) -> Member:
        """Return a member with its content, or with the reason why it has none; "./a" is a member called "a"."""
        name = relative(name)
        shown = text(name)
        problem = problem or unsafe(name) or self._too_large(size)
        if problem is not None or not self.reads:
            return Member(shown, place, None, problem)
        try:
            return Member(shown, place, content())
        except Unreadable as error:
            return Member(shown, place, None, one_line(str(error)))

    def _too_large(self, size: int) -> str | None:
        return f"{size:,} bytes, more than max_bytes={self.max_bytes:,}" if size > self.max_bytes else None


def relative(name: str) -> str:
    """Return a name without "./" in front, as `tar cf x.tar .` writes it."""
    return re.sub(r"^(\./+)+(?=.)", "", name, flags=re.DOTALL)


def text(name: str) -> str:
    """Return a name as text that can be kept: bytes that are no UTF-8 as \\x.. ."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def unsafe(name: str) -> str | None:
    """Return what is wrong with a member's name, which must lead to a place below the archive."""
    if name != text(name):
        return "name is not UTF-8"
    if not name or "\0" in name:
        return "no name" if not name else "name with a NUL"
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:[/\\\\]", name):
        return "absolute name"
    if ".." in re.split(r"[/\\]", name):
        return "name leads elsewhere (..)"
    return None
