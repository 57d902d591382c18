"""From a feature table to a trained model, whatever kind of model learns. Driver.

A kind of learner is a module with a function like `learn`, and a line in KINDS; a model names its learner (`Model.learner`).
"""

from typing import Protocol

from pyspark.sql import SparkSession

from mlspark.training import ensemble_learner, network_learner, trees_learner
from mlspark.training.events import OnEvent
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec


class Learner(Protocol):
    """Learns from the rows of a run."""

    def __call__(
        self, spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, *, functions: Functions
    ) -> LearnedModel:
        """See `learn`."""
        ...


KINDS: dict[str, Learner] = {
    "network": network_learner.learn,
    "trees": trees_learner.learn,
    "ensemble": ensemble_learner.learn,
}
"""`Model.learner` -> function that learns it."""


def learn(
    spark: SparkSession, spec: TrainingSpec, on_event: OnEvent, *, functions: Functions = NO_FUNCTIONS
) -> LearnedModel:
    """Return the model learned from the rows of `spec`. Runs on the driver.

    Needs spec.snapshot_uri in place; writes everything else below spec.run_uri, the predictions of validation and test rows
    among it. A run that was begun there and not ended goes on.

    Args:
        spark: an active session whose executors reach spec.run_uri, the table and this driver.
        spec: the run.
        on_event: called for each event of the run, in order; see `launcher.launch`.
        functions: model and loss in place of the settings'; networks only.

    Raises:
        ConfigError: the settings, or this Spark, do not fit the learner.
        TrainingFailed: it could not be trained.
    """
    return KINDS[spec.model.learner](spark, spec, on_event, functions=functions)
