"""Dates and times of files that Spark wrote in the calendar of its second version, in the calendar of today.

Before 1582-10-15 that version counted days by the Julian calendar, later ones by the Gregorian calendar throughout. The
footer says which it is, and Spark moves such days so that year, month and day stay what they were.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from mlspark.errors import DatasetError

_VERSION = b"org.apache.spark.version"
_LEGACY, _LEGACY_INT96 = b"org.apache.spark.legacyDateTime", b"org.apache.spark.legacyINT96"
_ZONE = b"org.apache.spark.timeZone"
_FIRST_GREGORIAN_DAY = -141_427  # 1582-10-15
_MICROSECONDS_OF_DAY = 86_400 * 10**6
_ALL_ZONES_AGREE = -25_567 * _MICROSECONDS_OF_DAY  # 1900-01-01: before, zones had a local mean time of their own
_UTC = re.compile(r"(Etc/)?(UTC|GMT|UCT|Zulu|Universal|Greenwich)|Z|[+-]00:?00|(UTC|GMT)[+-]0?0?:?0?0?")


@dataclass(frozen=True)
class Calendar:
    """How the dates and times of a file are counted."""

    is_old: bool
    """Whether dates and times are in the calendar of Spark 2."""
    is_int96_old: bool
    """Whether times of Parquet's type INT96 are."""
    zone: str
    """Time zone of the writer; empty where the file does not say."""

    @classmethod
    def of(cls, footer: pq.FileMetaData) -> "Calendar":
        """Return the calendar that the footer of a file names, as Spark understands it."""
        about: Mapping[bytes, bytes] = footer.metadata or {}
        version = about.get(_VERSION)
        if version is None:  # not Spark, or its first version: as it stands
            return cls(False, False, "")
        release = tuple(int(number) for number in re.findall(rb"\d+", version)[:2])
        return cls(
            release < (3, 0) or _LEGACY in about,
            release < (3, 1) or _LEGACY_INT96 in about,
            about.get(_ZONE, b"").decode(),
        )

    def dates(self, days: pa.Array) -> pa.Array:
        """Return dates (date32) as Spark reads them."""
        numbers = days.cast(pa.int32()).fill_null(0).to_numpy()
        if not self.is_old or not (numbers < _FIRST_GREGORIAN_DAY).any():
            return days
        moved = pa.array(from_julian(numbers.astype(np.int64)).astype(np.int32), mask=_nulls(days))
        return moved.cast(pa.date32())

    def times(self, times: pa.Array, column: str, *, is_int96: bool) -> pa.Array:
        """Return timestamps in microseconds as Spark reads them.

        Raises:
            DatasetError: they depend on the history of a time zone other than UTC; names `column`.
        """
        numbers = times.cast(pa.int64()).fill_null(0).to_numpy()
        is_old = self.is_int96_old if is_int96 else self.is_old
        if not is_old or not (numbers < _ALL_ZONES_AGREE).any():
            return times
        if not _UTC.fullmatch(self.zone):
            raise DatasetError(
                f"column {column} holds times before 1900 in the calendar of Spark 2 and "
                f"{f'the time zone {self.zone}' if self.zone else 'an unknown time zone'}; rewrite the table with Spark, "
                f"whose spark.sql.parquet.datetimeRebaseModeInWrite is CORRECTED"
            )
        days, rest = np.divmod(numbers, _MICROSECONDS_OF_DAY)
        moved = np.where(days < _FIRST_GREGORIAN_DAY, from_julian(days), days) * _MICROSECONDS_OF_DAY + rest
        return pa.array(moved, mask=_nulls(times)).cast(times.type)


def from_julian(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return days since 1970-01-01 with the year, month and day that `days` have before 1582-10-15 in the old calendar.

    What stands on 29 February of a year that has none any more becomes 1 March. Later days stay as they are.
    """
    # Days since 0000-03-01 of the Julian calendar, in which a year begins in March, so that its leap day is the last.
    since_march = days + 719_470
    year = (4 * since_march + 3) // 1461
    day_of_year = since_march - (1461 * year) // 4
    # The same year's 1 March in the Gregorian calendar; 29 February is one day after the last day of a common year.
    gregorian = 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
    return np.where(days < _FIRST_GREGORIAN_DAY, gregorian, days)


def _nulls(array: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(array.is_null())
