"""All settings of one pipeline, from raw rows to scores; each section's class stands beside what it sets. Driver."""

import json
from typing import Annotated

from pydantic import Field, model_validator

from mlspark import storage
from mlspark.cost import CostSettings
from mlspark.features.settings import FeaturesSettings
from mlspark.features.shift import ShiftSettings
from mlspark.features.split import SplitSettings
from mlspark.intake.joins import JoinSettings
from mlspark.models import ModelSettings
from mlspark.models.tabular import TabularSettings
from mlspark.monitoring.settings import MonitoringSettings
from mlspark.registry.gate import PromotionSettings
from mlspark.registry.settings import RegistrySettings
from mlspark.scoring.settings import ScoringSettings
from mlspark.section import Section
from mlspark.settings import yaml_file
from mlspark.sources.catalog import SourcesSettings
from mlspark.sources.settings import SourceSettings
from mlspark.storage import StorageSettings
from mlspark.streaming.settings import StreamingSettings
from mlspark.tasks.kinds import TaskSettings
from mlspark.tracking.settings import TrackingSettings
from mlspark.training import members
from mlspark.training.settings import TrainingSettings

_OWN_SOURCES = ("learn", "validation", "test", "score")


class Settings(Section):
    """One pipeline, from raw rows to scores."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """Name of the pipeline, and of its tables, MLflow experiment and registered model."""
    contract: str
    """Contract file of the raw rows (schemas/*.json), relative to the working directory."""
    storage: StorageSettings = StorageSettings()
    sources: SourcesSettings
    joins: tuple[JoinSettings, ...] = ()
    task: TaskSettings
    split: SplitSettings = SplitSettings()
    features: FeaturesSettings
    shift: ShiftSettings = ShiftSettings()
    streaming: StreamingSettings = StreamingSettings()
    model: ModelSettings = TabularSettings()
    training: TrainingSettings = TrainingSettings()
    registry: RegistrySettings = RegistrySettings()
    promotion: PromotionSettings = PromotionSettings()
    scoring: ScoringSettings = ScoringSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    tracking: TrackingSettings = TrackingSettings()
    cost: CostSettings = CostSettings()

    @model_validator(mode="after")
    def _cross_check(self) -> "Settings":
        members.check(self.model, self.training, self.streaming, self.task)
        names = [join.name for join in self.joins]
        wrong = sorted({name for name in names if names.count(name) > 1 or name in _OWN_SOURCES})
        if wrong:
            raise ValueError(f"joins: {', '.join(wrong)}: each name once, and none of {', '.join(_OWN_SOURCES)}")
        self._check_promotion()
        return self

    def _check_promotion(self) -> None:
        """Refuse metrics that the task does not have, and a champion that every training would replace."""
        for name, setting in self.promotion.metric_settings:
            self.task.metric(name, setting=setting)
        alias = self.registry.alias
        # MLflow on some databases takes aliases for the same that differ in case alone.
        if alias.lower() == self.promotion.champion.lower() and self.promotion.mode != "disabled":
            raise ValueError(
                f"registry.alias: {alias} is promotion.champion, so that every training would move it; call it otherwise, "
                f"or set promotion.mode=disabled"
            )

    @property
    def root(self) -> str:
        """Absolute `storage.root`."""
        return storage.absolute(self.storage.root)

    @property
    def all_sources(self) -> dict[str, SourceSettings]:
        """Whatever the pipeline reads, by name: rows, joined sources, rows to score, labels that come later."""
        later = {"score": self.scoring.source, "monitoring.labels": self.monitoring.labels}
        given = {name: source for name, source in later.items() if source is not None}
        return self.sources.rows | {join.name: join.source for join in self.joins} | given

    def table(self, kind: str) -> str:
        """Return the URI of this pipeline's table `kind` (features, quarantine, scores, ...)."""
        return storage.join(self.root, "tables", f"{self.name}_{kind}")

    def to_yaml(self) -> str:
        """Return the resolved settings as a file that loads as the same settings."""
        return yaml_file.write(json.loads(self.model_dump_json()))
