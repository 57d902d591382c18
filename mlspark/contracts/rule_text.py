"""The text of a row rule, parsed: common SQL and Python spellings of a condition become one tree. Runs anywhere."""

import ast
import keyword
import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")"""
    r"|(?P<name>`[A-Za-z_]\w*`)"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<sign><>|<=|>=|==|!=|[-=<>+*/(),])"
    r"|(?P<white>\s+)",
    re.ASCII,
)
_SIGNS = {"=": "==", "<>": "!="}
_WORDS = {
    "and": "and",
    "or": "or",
    "not": "not",
    "in": "in",
    "is": "is",
    "true": "True",
    "false": "False",
    "null": "None",
}
_NAMED = "column_"
"""Goes before a column that has the name of a keyword of Python."""


@dataclass(frozen=True)
class RuleText:
    """A rule's text, and the tree that Python makes of it."""

    text: str
    tree: ast.expr
    _starts: tuple[tuple[int, int, int, int], ...]
    """Of each token: (start, end) in the bytes that Python parsed, (start, end) in the text."""

    def part(self, node: ast.expr) -> str:
        """Return the part of the text that a node is."""
        assert node.end_col_offset is not None
        inside = [token for token in self._starts if node.col_offset <= token[0] and token[1] <= node.end_col_offset]
        return self.text[inside[0][2] : inside[-1][3]] if inside else self.text


def parse(text: str) -> RuleText:
    """Return the tree of a rule.

    Raises:
        ValueError: it cannot be read; says where.
    """
    written, places = _as_python(text)
    try:
        tree = ast.parse(written, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if not isinstance(error, SyntaxError):
            raise ValueError(str(error)) from None
        at = len(written[: (error.offset or len(written) + 1) - 1].encode())  # offset 0: the text ends too early
        near = next((text[start:end] for first, _, start, end in places if first >= at), "its end")
        raise ValueError(f"cannot be read at {near}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = node.id.removeprefix(_NAMED) if keyword.iskeyword(node.id.removeprefix(_NAMED)) else node.id
    return RuleText(text, tree, tuple(places))


def names(text: str) -> set[str]:
    """Return the words of SQL that are not in quotes, in lower case: its columns are among them."""
    return {token.strip("`").lower() for kind, token, _ in _tokens(text) if kind in ("name", "word")}


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Return (kind, part, place) of each; a character that is in none is of kind "other"."""
    tokens, at = [], 0
    while at < len(text):
        part = _TOKEN.match(text, at)
        kind, piece = (part.lastgroup or "other", part[0]) if part else ("other", text[at])
        tokens.append((kind, piece, at))
        at += len(piece)
    return [part for part in tokens if part[0] != "white"]


def _as_python(text: str) -> tuple[str, list[tuple[int, int, int, int]]]:
    pieces, places, at, before, before_kind = [], [], 0, "", ""
    for kind, part, start in _tokens(text):
        if kind == "other" or (part == before == "-" and text[start - 1] == "-"):
            raise ValueError(f"{part!r} cannot be used")
        if kind == "text" and before_kind == "text":
            raise ValueError(f"{part}: a comma or a sign is missing before it")
        piece = _token_as_python(kind, part, before)
        places.append((at, at + len(piece.encode()), start, start + len(part)))
        pieces.append(piece)
        at += len(piece.encode()) + 1
        before = "is" if before == "is" and part.lower() == "not" else part.lower()
        before_kind = kind
    return " ".join(pieces), places


def _token_as_python(kind: str, part: str, before: str) -> str:
    if kind == "text":
        if "\\" in part:
            raise ValueError(f"{part}: a backslash in a text is not known")
        return repr(part[1:-1].replace(part[0] * 2, part[0]))
    if kind == "sign":
        return _SIGNS.get(part, part)
    if kind == "word":
        if part.lower() == "missing" and before == "is":
            return "None"
        if part.lower() in _WORDS:
            return _WORDS[part.lower()]
    name = part.strip("`")
    return _NAMED + name if kind in ("word", "name") and keyword.iskeyword(name) else name
