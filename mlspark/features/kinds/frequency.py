"""The kind `frequency`: the category's share of the training rows. Runs anywhere."""

from typing import Literal

from mlspark.features.counts import Counts
from mlspark.features.kinds.categories import DeclaredCategories, known_values
from mlspark.features.kinds.kind import Kind, Output
from mlspark.features.kinds.lookup import LookedUp
from mlspark.tasks.task import Task


class FrequencyFeature(DeclaredCategories):
    """One float: the category's share of the training rows; 0 for an unseen one."""

    kind: Literal["frequency"]

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Frequency":
        known = known_values(name, source, counts.texts[name])
        shares = tuple(rows / counts.rows for rows in known["counts"])
        return Frequency(**known, numbers=shares, missing=known["nulls"] / counts.rows, unseen=0.0)


class Frequency(LookedUp):
    """The share of the training rows with the same category."""

    kind: Literal["looked_up"] = "looked_up"
    what: Literal["frequency"] = "frequency"

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (Output(self.name, self.name, f"share of the training rows with the same {self.source_words}"),)


KIND = Kind(FrequencyFeature, (Frequency,))
