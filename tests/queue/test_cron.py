"""Times of cron, by the calendar: 2026-11-28 is a Saturday."""

from datetime import datetime

import pytest

from mlspark.errors import ConfigError
from mlspark.queue import cron


@pytest.mark.parametrize(
    ("text", "now", "last"),
    [
        ("* * * * *", "2026-11-28 22:35:59", "2026-11-28 22:35"),
        ("30 3 * * *", "2026-11-28 03:29:59", "2026-11-27 03:30"),
        ("30 3 * * *", "2026-11-28 03:30:00", "2026-11-28 03:30"),
        ("*/15 * * * *", "2026-11-28 00:14", "2026-11-28 00:00"),
        ("5/20 8-10 * * *", "2026-11-28 23:00", "2026-11-28 10:45"),
        ("0 6 * * 1-5", "2026-11-28 12:00", "2026-11-27 06:00"),
        ("0 6 * * mon,WED", "2026-11-28 12:00", "2026-11-25 06:00"),
        ("0 0 * * 7", "2026-11-28 12:00", "2026-11-22 00:00"),
        ("@weekly", "2026-11-28 12:00", "2026-11-22 00:00"),
        ("0 0 31 * *", "2026-11-28 12:00", "2026-10-31 00:00"),
        # Neither is *, so one of them is enough: the 13th, or a Friday.
        ("0 0 13 * fri", "2026-11-28 12:00", "2026-11-27 00:00"),
        ("0 0 13 * fri", "2026-11-14 12:00", "2026-11-13 00:00"),
        ("0 0 29 feb *", "2026-11-28 12:00", "2024-02-29 00:00"),
        ("0 0 29 feb *", "2104-02-28 12:00", "2096-02-29 00:00"),
        ("@yearly", "2026-01-01 00:00", "2026-01-01 00:00"),
    ],
)
def test_last_due_minute(text: str, now: str, last: str) -> None:
    assert cron.parse(text).last(datetime.fromisoformat(now)) == datetime.fromisoformat(last)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 3 * *", r"4 fields; give five, minute, hour, day of the month, month, day of the week"),
        ("60 3 * * *", r"minute: '60' is none; give 0 to 59; with"),
        ("0 24 * * *", r"hour: '24' is none; give 0 to 23"),
        ("0 0 0 * *", r"day of the month: '0' is none; give 1 to 31"),
        ("0 0 * mai *", r"month: 'mai' is none; give 1 to 12, or jan, feb"),
        ("0 0 * * 5-1", r"day of the week: '5-1' is none; give 0 to 7, or sun, mon"),
        ("*/0 * * * *", r"minute: '\*/0' is none"),
        ("1,,2 * * * *", r"minute: '' is none"),
        ("0 0 31 feb *", r"such a day never comes"),
        ("@often", r"1 fields; give five"),
    ],
)
def test_wrong_times_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cron.parse(text)
