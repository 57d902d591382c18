"""Where a text of the user says a column's header in place of its name: what to answer. Runs anywhere."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TEXTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_SHOWN = 20
"""Most columns that a message lists."""


def no_column(name: str, headers: Mapping[str, str], *, of: str, more: Sequence[str] = ()) -> str:
    """Return in words that there is no column of this name, and which one may be meant.

    Args:
        name: what was asked for.
        headers: header in the sources -> name of the column.
        of: what has these columns: "contract census".
        more: further columns.
    """
    if name in headers:
        return _is_called(name, headers[name])
    known = [*headers.values(), *more]
    if close := difflib.get_close_matches(name, known, n=1):
        return f"not a column of {of}, did you mean {close[0]}?"
    others = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"not a column of {of} ({', '.join(known[:_SHOWN])}{others})"


def in_expression(text: str, headers: Mapping[str, str], *, is_refused: bool = False) -> str:
    """Return what to answer to an expression over names of columns that says a header; "" where it says none.

    Refused is any expression with such a header, even where Spark could compute it: `education-num` is no difference.

    Args:
        text: the expression.
        headers: header in the sources -> name of the column.
        is_refused: whether the expression cannot be used anyway; then headers count that are names themselves.
    """
    called = {header: name for header, name in headers.items() if header != name}
    header = _said(text, called, quotes="`?", plain=is_refused)
    return _is_called(header, called[header]) + _otherwise(header) if header else ""


def in_filter(text: str, columns: Sequence[str], headers: Mapping[str, str], *, is_refused: bool = False) -> str:
    """Return what to answer to SQL over a source's own columns that says one in another way; "" where it says none.

    Args:
        text: the condition.
        columns: those of the source.
        headers: header in the sources -> name of the column in the contract.
        is_refused: whether the condition cannot be used anyway; then names of the contract count, too.
    """
    if header := _said(text, columns, quotes="", plain=False):
        return f"column {header!r} has to stand in backquotes: `{header}`{_otherwise(header)}"
    called = {name: header for header, name in headers.items() if header != name and name not in columns}
    name = _said(text, called, quotes="`?", plain=True) if is_refused else ""
    return f"column {name} is called `{called[name]}` in the source" if name else ""


def _is_called(header: str, name: str) -> str:
    return f"the column of header {header!r} is called `{name}`"


def _otherwise(header: str) -> str:
    """Return what to do where no column is meant, if the header may be an expression: "a-b"."""
    is_expression = re.fullmatch(r"\w+(\s*[-+*/%]\s*\w+)+", header)
    return "; if arithmetic is meant, put its columns in ( )" if is_expression else ""


def _said(text: str, headers: Iterable[str], *, quotes: str, plain: bool) -> str:
    """Return the longest header that stands in a text, outside of quoted texts; "" where none does.

    Args:
        text: an expression.
        headers: those to look for; one without a letter is none.
        quotes: pattern of what may stand around one.
        plain: whether headers count that look like names.
    """
    bare = _TEXTS.sub("''", text)
    bare = bare if quotes else re.sub(r"`(?:[^`]|``)*`", "``", bare)
    for header in sorted(headers, key=len, reverse=True):
        is_name = _NAME.fullmatch(header) is not None
        if not any(character.isalpha() for character in header) or (is_name and not plain):
            continue
        # A function of the same name is none.
        edges = r"(?<!\w)" if header[0].isalnum() else "", r"(?!\w|\s*\()" if header[-1].isalnum() else ""
        if re.search(f"{edges[0]}{quotes}{re.escape(header)}{quotes}{edges[1]}", bare):
            return header
    return ""
