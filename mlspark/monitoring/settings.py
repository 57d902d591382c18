"""Which changes of scored rows, scores and labels are an alarm, and where labels come from. Driver."""

from typing import Annotated

from pydantic import Field

from mlspark.features import drift
from mlspark.section import Section
from mlspark.sources.catalog import AnySource

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class MonitoringSettings(Section):
    """Limits of `mlspark monitor`. A limit that is passed is an alarm where chance alone does not explain it."""

    max_psi: Annotated[float, Field(gt=0.0)] = drift.LARGE
    """Population stability index of a column, of a score or of the labels from which on their change is an alarm."""
    max_missing_change: Share = 0.05
    """Change of a column's share of missing values, up or down, from which on it is an alarm."""
    max_unseen_share: Share = 0.01
    """Share of the scored rows with a value of a column that no training row had from which on it is an alarm."""
    max_quarantined_increase: Share = 0.02
    """Increase of the share of quarantined rows over that of the training data from which on it is an alarm."""
    metric: str = ""
    """Metric of the task that is an alarm when it gets worse; empty: the task's default. All metrics are reported."""
    max_metric_loss: Annotated[float, Field(ge=0.0)] = 0.05
    """How much worse the metric may be than on the kept rows, as a share of its value there: 0.05 of a log loss of 0.28 is
    0.014. From there on it is an alarm."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """Least number of scored rows, and of labelled ones, that are compared; of fewer it is said that they are too few."""
    false_alarms: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Share of the runs, if nothing has changed, that may end in an alarm by chance: an alarm needs a p-value up to this
    share divided by the number of comparisons of the run (Bonferroni)."""
    ignore: tuple[str, ...] = ()
    """Columns of the contract that are not compared, like ids and times, which change by their nature."""
    labels: AnySource | None = None
    """Source of labels that came later: columns of `label_key`, and the label under its name in the contract."""
    label_key: tuple[str, ...] = ()
    """Columns of the score table by which its rows get their labels; empty: the contract's unique key, else row_number where
    the source has such a column, else row_id."""
