"""Patterns that mean the same to Java's engine (Spark) and RE2 (Arrow); others are refused by name. Runs anywhere.

Both match the whole text, character by character (code points). Where the engines differ in a detail of something
common, each gets its own spelling: a `.` is any character but a newline, `\\s` the six white characters of ASCII.
"""

import re
import warnings
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import compute as pc

_WHITE = r"\t\n\x0B\f\r "
_CLASSES = "dDwW"
_CONTROLS = "tnrf"
_MAX_REPEAT = 1000
_QUANTIFIER = re.compile(r"\{(\d+)(,(\d*))?\}", re.ASCII)
_HEX = re.compile(r"\\x[0-9A-Fa-f]{2}")


def spark(pattern: str) -> str:
    """Return the pattern for `rlike`."""
    # (?d): only "\n" ends a line; Java would keep "." from "\r", "\u0085", "\u2028" and "\u2029" too.
    return rf"(?d)\A(?:{''.join(_spelled(pattern))})\z"


def arrow(pattern: str) -> str:
    """Return the pattern for `match_substring_regex`."""
    return rf"\A(?:{''.join(_spelled(pattern))})\z"


def check(pattern: str) -> None:
    """Refuse a pattern that the engines do not both know, or do not read alike.

    Raises:
        ValueError: says which part, and where.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of "[[" and the like, which are refused below
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    try:
        pc.match_substring_regex(pa.array([""]), arrow(pattern))
    except (pa.ArrowInvalid, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None


def _spelled(pattern: str) -> Iterator[str]:
    """Yield the parts of a pattern, spelt for both engines. Raises ValueError as `check` does."""
    at, end = 0, len(pattern)
    can_repeat = False
    while at < end:
        character = pattern[at]
        part, is_atom = character, True
        if character == "\\":
            part = _escape(pattern, at)
            yield _own_spelling(part, in_class=False)
        elif character == "[":
            part = _class_at(pattern, at)
            yield _class_spelling(part)
        elif character == "(":
            part, is_atom = _group(pattern, at), False
            yield part
        elif character in "*+?{":
            part, is_atom = _repeat(pattern, at, can_repeat=can_repeat), False
            yield part
        elif character in "^$":
            if at != (0 if character == "^" else end - 1):
                raise _differs(character, at, "in the middle: the whole text is matched, leave it out")
            is_atom = False
            yield part
        else:
            is_atom = character != "|"
            yield re.escape(character) if character in "}]" else character
        can_repeat = is_atom
        at += len(part)


def _escape(pattern: str, at: int) -> str:
    """Return the escape at `at`, as it is written."""
    if hexadecimal := _HEX.match(pattern, at):
        return hexadecimal[0]
    escaped = pattern[at + 1]  # there is one: Python has compiled it
    if escaped in _CLASSES + _CONTROLS + "sS" or (escaped.isascii() and not escaped.isalnum()):
        return pattern[at : at + 2]
    raise _differs(pattern[at : at + 2], at)


def _own_spelling(escape: str, *, in_class: bool) -> str:
    if escape == r"\s":
        return _WHITE if in_class else f"[{_WHITE}]"
    if escape == r"\S":
        return f"[^{_WHITE}]"
    return escape


def _class_at(pattern: str, at: int) -> str:
    """Return the [class] that starts at `at`, as it is written."""
    place = at + 1 + (pattern[at + 1 : at + 2] == "^")
    if pattern[place : place + 1] == "]":
        raise _differs("[]", at, r"write \] for the bracket")
    was_range = False
    while pattern[place] != "]":
        character = pattern[place]
        part = _escape(pattern, place) if character == "\\" else character
        if character == "[":
            raise _differs("[ in a class", place, r"write \[")
        if character in "&|~-" and pattern[place + 1] == character:
            raise _differs(character * 2, place)
        if part == r"\S":
            raise _differs(r"\S in a class", place)
        if character == "-" and was_range and pattern[place + 1] != "]":
            raise _differs("- after a range", place, r"write \-")
        is_last = pattern[place + 1] == "]"
        is_first = place == at + 1 + (pattern[at + 1] == "^")
        was_range = character == "-" and not is_last and not is_first
        if was_range:
            place += 1
            part = _escape(pattern, place) if pattern[place] == "\\" else pattern[place]
        place += len(part)
    return pattern[at : place + 1]


def _class_spelling(written: str) -> str:
    return re.sub(
        r"\\(?:x[0-9A-Fa-f]{2}|.)",
        lambda escape: _own_spelling(escape[0], in_class=True),
        written,
        flags=re.DOTALL,
    )


def _group(pattern: str, at: int) -> str:
    if pattern.startswith("(?:", at):
        return "(?:"
    if pattern.startswith("(?", at):
        named = re.match(r"\(\?(<[=!]|P.|.)", pattern[at:], re.DOTALL)
        raise _differs(named[0] if named else "(?", at, "look-around, flags and names of groups are not known")
    return "("


def _repeat(pattern: str, at: int, *, can_repeat: bool) -> str:
    if not can_repeat:
        raise _differs(pattern[at], at, rf"write \{pattern[at]} for the character")
    part = pattern[at]
    if part == "{":
        quantifier = _QUANTIFIER.match(pattern, at)
        if quantifier is None:
            raise _differs("{", at, r"write \{ for the bracket")
        if max(int(quantifier[1]), int(quantifier[3] or 0)) > _MAX_REPEAT:
            raise _differs(quantifier[0], at, f"at most {_MAX_REPEAT} repetitions; use min_length and max_length")
        part = quantifier[0]
    following = pattern[at + len(part) : at + len(part) + 1]
    if following == "+":
        raise _differs(part + "+", at)
    return part + ("?" if following == "?" else "")


def _differs(part: str, at: int, remedy: str = "") -> ValueError:
    hint = f": {remedy}" if remedy else ""
    return ValueError(f"{part} at character {at + 1} is not read alike by Spark (Java) and Arrow (RE2){hint}")
