"""What a training run is: all that its ranks need, as one file, and where the run's files are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlspark import storage
from mlspark.config import ModelSettings, StreamingSettings, TrainingSettings
from mlspark.features.layout import Layout


@dataclass(frozen=True)
class TrainingSpec:
    """One training run, written by the driver and read by every rank."""

    run_uri: str
    """Folder of the run, of any scheme, reachable from driver and ranks."""
    layout: Layout
    model: ModelSettings
    training: TrainingSettings
    streaming: StreamingSettings

    @property
    def uri(self) -> str:
        """Where this spec is saved."""
        return storage.join(self.run_uri, "spec.json")

    @property
    def snapshot_uri(self) -> str:
        """The pinned snapshot: all splits."""
        return storage.join(self.run_uri, "snapshot.json")

    @property
    def events_uri(self) -> str:
        """Folder of the events of rank 0."""
        return storage.join(self.run_uri, "events")

    @property
    def ranks_uri(self) -> str:
        """Folder of what each rank leaves: rank-R.json, or rank-R.error.json."""
        return storage.join(self.run_uri, "ranks")

    def checkpoint_uri(self, name: str) -> str:
        """Return the folder of checkpoint `name`: best or last."""
        return storage.join(self.run_uri, "checkpoints", name)

    def to_json(self) -> dict[str, Any]:
        return {
            "run_uri": self.run_uri,
            "layout": self.layout.to_json(),
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "streaming": self.streaming.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TrainingSpec":
        # Not strict: the settings were validated when they were configured, and JSON has lists for tuples.
        return cls(
            run_uri=value["run_uri"],
            layout=Layout.from_json(value["layout"]),
            model=ModelSettings.model_validate(value["model"], strict=False),
            training=TrainingSettings.model_validate(value["training"], strict=False),
            streaming=StreamingSettings.model_validate(value["streaming"], strict=False),
        )

    def save(self) -> str:
        """Write the spec into its run folder and return its URI."""
        storage.write_json(self.uri, self.to_json())
        return self.uri

    @classmethod
    def load(cls, uri: str) -> "TrainingSpec":
        return cls.from_json(storage.read_json(uri))
