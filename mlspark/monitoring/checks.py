"""Comparisons held against limits: which are passed, and by more than chance. Runs anywhere."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mlspark.tasks.intervals import Interval

Subject = Literal["input", "score", "label", "performance", "quarantine"]
SUBJECTS: tuple[Subject, ...] = ("input", "score", "label", "performance", "quarantine")
"""What is compared, in the order of reports."""
_LEAST_LEVEL = 1e-5
"""Of thousands of comparisons; `chance.of_psi` tells no smaller p-value."""
VERDICTS = ("alarm", "chance", "fine")
"""Verdicts on a comparison, the gravest first; chance: over its limit, but not by more than chance may do."""


@dataclass(frozen=True)
class Comparison:
    """A figure that has a limit."""

    subject: Subject
    name: str
    """Of the column or metric; "rows" of the quarantine."""
    measure: Literal["psi", "missing_change", "unseen_share", "metric_loss", "quarantined_increase"]
    value: float
    """What is held against the limit; a missing share's change has its sign, and its size counts."""
    limit: float
    rows: int
    """Rows that it is of."""
    p_value: Callable[[float], float]
    """Level -> how likely such a value is by chance, told finely enough for that level."""
    old: float | None = None
    """Share or metric in training; None for a psi."""
    new: float | None = None
    old_interval: Interval | None = None
    new_interval: Interval | None = None
    detail: str = ""
    """Words for a person: the values that were unseen, the reasons."""


@dataclass(frozen=True)
class Check:
    """A comparison with its verdict, as reports and the table have it."""

    subject: str
    name: str
    measure: str
    value: float
    limit: float
    verdict: str
    p_value: float | None
    """How likely such a value is by chance; None where the limit is kept, as nothing depends on it."""
    level: float
    """p-value up to which a passed limit is an alarm."""
    rows: int
    old: float | None
    new: float | None
    old_interval: Interval | None
    new_interval: Interval | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def judged(comparisons: Sequence[Comparison], *, false_alarms: float) -> list[Check]:
    """Return the comparisons with their verdicts, in the same order.

    Args:
        comparisons: all of a run.
        false_alarms: probability that any of them is an alarm although nothing has changed.
    """
    level = max(_LEAST_LEVEL, false_alarms / max(1, len(comparisons)))
    checks = []
    for comparison in comparisons:
        p_value, verdict = None, "fine"
        size = abs(comparison.value) if comparison.measure == "missing_change" else comparison.value
        if size > 0 and size >= comparison.limit:
            p_value = comparison.p_value(level)
            verdict = "alarm" if p_value <= level else "chance"
        fields = {name: getattr(comparison, name) for name in Comparison.__dataclass_fields__ if name != "p_value"}
        checks.append(Check(**fields, p_value=p_value, verdict=verdict, level=level))
    return checks
