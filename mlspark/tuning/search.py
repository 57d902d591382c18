"""What a search chooses from: a YAML file of section.key -> range or choices. Runs anywhere."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, ValidationError, model_validator

from mlspark.errors import ConfigError
from mlspark.section import Section
from mlspark.settings import loading, merging
from mlspark.settings.pipeline import Settings

SECTIONS = ("model", "training", "streaming")
"""Sections that can be searched: training reads them; for others prepare would have to run again for each trial."""
_MAX_PROBES = 100


class Range(Section):
    """Numbers from low to high, both included; whole ones when both ends are."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether the logarithm is drawn evenly, for values that span orders of magnitude."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Distance between the values that are drawn: low, low + step, low + 2 step, ...; unset: any value."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs a low above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log: true goes with no step")
        if self.step is not None:
            low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
            if last := (high - low) % step:
                raise ValueError(f"steps of {self.step} from low {self.low} miss high {self.high}; say {high - last}")
            if self.is_whole and not isinstance(self.step, int):
                raise ValueError(f"step {self.step} between whole ends; write low as {float(self.low)}")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> BaseDistribution:
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, drawn: Any) -> Any:
        return drawn

    def probes(self) -> list[Any]:
        """Return values of which the settings must accept each: all of a few whole ones, else the ends."""
        if self.is_whole:
            steps = range(int(self.low), int(self.high) + 1, int(self.step or 1))
            if len(steps) <= _MAX_PROBES:
                return list(steps)
        return [self.low, self.high]


class Choices(Section):
    """One of several values of any type, also lists."""

    choices: Annotated[tuple[Any, ...], Field(min_length=2)]

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution([json.dumps(choice) for choice in self.choices])  # Optuna keeps no lists

    def value(self, drawn: Any) -> Any:
        return json.loads(drawn)

    def probes(self) -> list[Any]:
        return list(self.choices)


@dataclass(frozen=True)
class Search:
    """The settings that are searched."""

    file: str
    """File that the search was read from, for messages."""
    space: Mapping[str, Range | Choices]
    """section.key -> values to draw from."""

    def distributions(self) -> dict[str, BaseDistribution]:
        return {key: entry.distribution() for key, entry in self.space.items()}

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return section.key -> value of what Optuna drew."""
        return {key: entry.value(drawn[key]) for key, entry in self.space.items()}

    def largest(self, key: str, default: int) -> int:
        """Return the largest value that `key` may take; `default` when it is not searched."""
        return max(self.space[key].probes()) if key in self.space else default

    def names(self) -> dict[str, str]:
        """Return section.key -> key, or all of it where two end the same."""
        last = {key: key.rpartition(".")[2] for key in self.space}
        return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}

    def logarithmic(self) -> set[str]:
        return {key for key, entry in self.space.items() if isinstance(entry, Range) and entry.log}

    def to_json(self) -> dict[str, Any]:
        return {key: entry.model_dump(mode="json") for key, entry in self.space.items()}


def load(file: str, settings: Settings) -> Search:
    """Return the search that `file` describes, every key, end and choice of it tried on `settings`.

    Raises:
        ConfigError: one line naming every wrong key with its remedy.
    """
    content = {str(key): value for key, value in merging.read(file, option="--search").items()}
    problems, space = [], {}
    for key, entry in content.items():
        try:
            space[key] = _entry(file, key, entry)
            for value in space[key].probes():
                loading.override(settings, {key: value}, source=file)
        except ConfigError as error:
            problems.append(str(error))
    if not content:
        problems.append(f"{file}: nothing to search; give section.key: {{low: ..., high: ...}} or {{choices: [...]}}")
    if problems:
        raise ConfigError("; ".join(problems))
    return Search(file, space)


def _entry(file: str, key: str, entry: Any) -> Range | Choices:
    section, dot, _ = key.partition(".")
    if section in Settings.model_fields:
        if section not in SECTIONS:
            raise ConfigError(
                f"{file}: {key}: cannot be searched, because trials share one prepared table; "
                f"searched can be keys of {', '.join(SECTIONS)}"
            )
        if not dot:
            raise ConfigError(f"{file}: {key}: name one key with a dot, like {section}.{_first(section)}")
    if not isinstance(entry, dict):
        raise ConfigError(f"{file}: {key}: expected low and high, or choices, got {entry!r}")
    kind = Choices if "choices" in entry else Range
    try:
        # Through JSON, as config does: a YAML list is taken for a tuple.
        return kind.model_validate_json(json.dumps(entry))
    except ValidationError as error:
        explained = dict.fromkeys(_explain(problem, kind) for problem in error.errors())
        raise ConfigError("; ".join(f"{file}: {key}{problem}" for problem in explained)) from None


def _explain(problem: Any, kind: type[Range | Choices]) -> str:
    if not problem["loc"]:
        return f": {problem['ctx']['error']}"
    field, got = str(problem["loc"][0]), problem["input"]
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, kind.model_fields, n=1, cutoff=0.5)
        known = ", ".join(kind.model_fields)
        return f".{field}: unknown key, " + (f"did you mean {close[0]}?" if close else f"known here: {known}")
    if problem["type"] == "missing":
        return f".{field}: missing"
    if isinstance(got, float) and not math.isfinite(got):
        return f".{field}: expected a finite number, got {got!r}"
    if problem["type"] in ("int_type", "float_type", "int_from_float"):
        # YAML 1.1 takes 1e-4 for text.
        hint = f"; write {float(got):.1e} with a point" if isinstance(got, str) and _is_number(got) else ""
        return f".{field}: expected a number, got {got!r}{hint}"
    return f".{field}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {got!r}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first(section: str) -> str:
    keys: list[str] = list(type(Settings.model_fields[section].default).model_fields)
    return keys[0]
