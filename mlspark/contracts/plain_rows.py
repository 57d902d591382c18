"""Few rows as Python's own values, which stand in for a table of Arrow. Runs anywhere.

Each call of Arrow costs some ten microseconds whatever the number of rows: on a single row, that is most of its time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa


class PlainRows:
    """Rows in a contract's types: a column is read as from a `pa.Table`, or as its plain values."""

    def __init__(
        self, schema: pa.Schema, num_rows: int, values: Mapping[str, Sequence[Any]], arrays: Mapping[str, pa.Array]
    ) -> None:
        """Hold them.

        Args:
            schema: of the table that they stand in for.
            num_rows: n.
            values: column -> its values (n,), None where missing: whole numbers, floats, booleans or texts.
            arrays: column -> its values (n,), of the other columns.
        """
        self._schema, self.num_rows, self._values, self._arrays = schema, num_rows, values, arrays

    @property
    def column_names(self) -> list[str]:
        """The columns, in the contract's order."""
        return list(self._schema.names)

    def plain(self, name: str) -> Sequence[Any] | None:
        """Return the values (n,) of a column of numbers, booleans or texts; None of another column."""
        return self._values.get(name)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column as a table has it."""
        array = self._arrays.get(name)
        if array is None:
            array = pa.array(self._values[name], self._schema.field(name).type)
        return pa.chunked_array([array])

    def table(self) -> pa.Table:
        """Return the rows as a table."""
        return pa.table([self.column(name) for name in self._schema.names], schema=self._schema)


def plain(rows: pa.Table | PlainRows, name: str) -> Sequence[Any] | None:
    """Return the values of a column where they are at hand as Python's; None where Arrow has them."""
    return rows.plain(name) if isinstance(rows, PlainRows) else None


def table(rows: pa.Table | PlainRows) -> pa.Table:
    """Return rows as a table."""
    return rows.table() if isinstance(rows, PlainRows) else rows
