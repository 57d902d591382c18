"""Times as cron writes them: minute, hour, day of the month, month, day of the week; in UTC. Pure; runs anywhere."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlspark.errors import ConfigError

_NAMES = ("minute", "hour", "day of the month", "month", "day of the week")
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_OF_A_YEAR = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_OF_A_YEAR, 1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_WORDS: tuple[Mapping[str, int], ...] = ({}, {}, {}, _MONTHS, _DAYS)
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_PART = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)
_SUNDAY = 7
_MINUTE = timedelta(minutes=1)
_YEARS_LOOKED_AT = 9
"""The longest that one waits for 29 February: 1896 to 1904, 2096 to 2104."""


@dataclass(frozen=True)
class Times:
    """When something is due."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0: Sunday."""
    is_either_day: bool
    """Whether a day of the month or of the week is enough, as cron has it where neither is *."""

    def last(self, moment: datetime) -> datetime | None:
        """Return the latest due minute that is not after `moment`; None where there is none in the last nine years."""
        minute = moment.replace(second=0, microsecond=0)
        oldest = minute - timedelta(days=366 * _YEARS_LOOKED_AT)
        while minute >= oldest:
            if minute.month not in self.months or not self._has_day(minute):
                minute = minute.replace(hour=0, minute=0) - _MINUTE
            elif minute.hour not in self.hours:
                minute = minute.replace(minute=0) - _MINUTE
            elif minute.minute not in self.minutes:
                minute -= _MINUTE
            else:
                return minute
        return None

    def _has_day(self, moment: datetime) -> bool:
        of_month, of_week = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.is_either_day else of_month and of_week


def parse(text: str) -> Times:
    """Return the times that five fields mean: *, numbers, names (mon, jan), ranges, lists, steps; or @daily and the like.

    Raises:
        ConfigError: names the field and what it may be, or the days never come.
    """
    fields = _SHORT.get(text.strip().lower(), text).split()
    if len(fields) != len(_NAMES):
        raise ConfigError(
            f'schedule "{text}": {len(fields)} fields; give five, {", ".join(_NAMES)}, like "30 3 * * 1-5", '
            f"or one of {', '.join(_SHORT)}"
        )
    sets = [_values(text, place, field) for place, field in enumerate(fields)]
    weekdays = frozenset(day % _SUNDAY for day in sets[4])
    is_either_day = not fields[2].startswith("*") and not fields[4].startswith("*")
    times = Times(text, sets[0], sets[1], sets[2], sets[3], weekdays, is_either_day)
    if times.last(datetime(2104, 12, 31, 23, 59)) is None:
        raise ConfigError(f'schedule "{text}": such a day never comes; correct day of the month or month')
    return times


def _values(text: str, place: int, field: str) -> frozenset[int]:
    least, most = _RANGES[place]
    values: set[int] = set()
    for part in field.lower().split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise _wrong(text, place, part)
        step = int(match["step"] or 1)
        if match["all"]:
            first, last = least, most - (place == 4)  # Sunday once
        else:
            first = _number(text, place, match["first"])
            last = _number(text, place, match["last"]) if match["last"] else most if match["step"] else first
        if not step or first > last:
            raise _wrong(text, place, part)
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, place: int, word: str) -> int:
    least, most = _RANGES[place]
    number = _WORDS[place].get(word, int(word) if word.isdigit() else -1)
    if not least <= number <= most:
        raise _wrong(text, place, word)
    return number


def _wrong(text: str, place: int, part: str) -> ConfigError:
    least, most = _RANGES[place]
    names = f", or {', '.join(_WORDS[place])}" if _WORDS[place] else ""
    return ConfigError(
        f'schedule "{text}": {_NAMES[place]}: {part!r} is none; give {least} to {most}{names}; with *, ranges a-b, '
        f"lists a,b and steps */n"
    )
