"""What a training run is: all that its ranks need, as one file, and where the run's files are."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlspark import storage
from mlspark.config import ModelSettings, StreamingSettings, TrainingSettings
from mlspark.features.layout import Layout

_ORDER = ("streams", "shuffle_window_rows", "remainder")
"""Of the streaming settings, those that decide the order of the rows; the others decide how fast they come."""
_NOT_TRAINED = {"recovery", "profile_steps", "num_processes", "use_gpu", "threads_per_rank"}
"""Of the training settings, those that do not decide what is trained, but for the last bits of float sums."""


@dataclass(frozen=True)
class TrainingSpec:
    """One training run, written by the driver and read by every rank."""

    run_uri: str
    """Folder of the run, of any scheme, reachable from driver and ranks."""
    layout: Layout
    model: ModelSettings
    training: TrainingSettings
    streaming: StreamingSettings
    attempt: int = 1
    """Counts the starts of the run's ranks: each has a folder of its own for what its ranks leave."""

    @property
    def uri(self) -> str:
        """Where this spec is saved."""
        return storage.join(self.attempt_uri, "spec.json")

    @property
    def snapshot_uri(self) -> str:
        """The pinned snapshot: all splits."""
        return storage.join(self.run_uri, "snapshot.json")

    @property
    def attempts_uri(self) -> str:
        return storage.join(self.run_uri, "attempts")

    @property
    def attempt_uri(self) -> str:
        """Folder of what this start's ranks leave: rank-R.json, or rank-R.error.json."""
        return storage.join(self.attempts_uri, f"{self.attempt:04d}")

    @property
    def checkpoints_uri(self) -> str:
        """Folder of the checkpoints from which a restart goes on, one folder each."""
        return storage.join(self.run_uri, "checkpoints")

    @property
    def best_uri(self) -> str:
        """The weights of the best epoch, as a checkpoint of their own."""
        return storage.join(self.run_uri, "best")

    def identity(self, table: str) -> dict[str, Any]:
        """Return all that decides the trained weights, for a table of fingerprint `table`."""
        training = self.training.model_dump(mode="json")
        streaming = self.streaming.model_dump(mode="json")
        return {
            "table": table,
            "layout": self.layout.to_json(),
            "model": self.model.model_dump(mode="json"),
            "training": {key: value for key, value in training.items() if key not in _NOT_TRAINED},
            "streaming": {key: streaming[key] for key in _ORDER},
        }

    def digest(self, table: str) -> str:
        """Return 16 hex digits of the identity."""
        return hashlib.sha256(json.dumps(self.identity(table), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "run_uri": self.run_uri,
            "layout": self.layout.to_json(),
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "streaming": self.streaming.model_dump(mode="json"),
            "attempt": self.attempt,
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
            attempt=value["attempt"],
        )

    def save(self) -> str:
        """Write the spec into its attempt's folder and return its URI."""
        storage.write_json(self.uri, self.to_json())
        return self.uri

    @classmethod
    def load(cls, uri: str) -> "TrainingSpec":
        return cls.from_json(storage.read_json(uri))
