"""Texts that stand for a missing value, of all columns or of each. Runs anywhere; needs no Spark."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from mlspark.errors import SourceError

OTHERS = "*"
"""Stands for the columns that have no texts of their own."""


def _by_column(value: Any) -> Any:
    """Return the texts by column of what a setting may say: a text, a list of texts, or either for each column."""
    by_column = value if isinstance(value, Mapping) else {OTHERS: value}
    texts = {str(column): _texts(listed) for column, listed in by_column.items()}
    return {column: listed for column, listed in texts.items() if listed or column != OTHERS}


def _texts(value: Any) -> tuple[str, ...]:
    listed = tuple(value) if isinstance(value, list | tuple) else (value,)
    for text in listed:
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is no text: put it in quotes, as it stands in the data")
    return tuple(dict.fromkeys(text for text in listed if text))


Markers = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_by_column)]
"""Column as the source calls it, or "*" for all others -> texts. A text or a list of texts is of all columns."""


def of(markers: Mapping[str, Sequence[str]], *names: str) -> list[str]:
    """Return the texts that stand for a missing value of the column with these names."""
    own = next((markers[name] for name in names if name in markers), None)
    return list(markers.get(OTHERS, ()) if own is None else own)


def check(markers: Mapping[str, Sequence[str]], columns: Sequence[str], uri: str) -> None:
    """Refuse texts of columns that are not there; raises SourceError that names them."""
    for column in markers:
        if column not in (OTHERS, *columns):
            close = difflib.get_close_matches(column, columns, n=1)
            hint = f"did you mean {close[0]}?" if close else f"columns are {', '.join(columns)}"
            raise SourceError(f"{uri}: missing: {column}: not a column, {hint}")
