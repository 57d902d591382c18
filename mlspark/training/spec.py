"""What a training run is: all that its ranks need, as one file, and where the run's files are."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlspark import models, storage
from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors
from mlspark.models.model import Model
from mlspark.pictures.filling import check_augment
from mlspark.streaming import mixing
from mlspark.streaming.settings import StreamingSettings
from mlspark.tasks import kinds as tasks
from mlspark.tasks.task import Task
from mlspark.training.settings import TrainingSettings

_ORDER = ("lanes", "shuffle_window_rows", "shuffle_window_bytes", "remainder")
"""Streaming settings that decide the order of the rows; the others decide how fast they come."""
_NOT_TRAINED = {
    "recovery", "profile_steps", "num_processes", "use_gpu", "threads_per_rank", "unused_parameters", "graph"
}  # fmt: skip
"""Training settings that do not decide what is trained, except for the last bits of float sums."""


def check_ranks(training: TrainingSettings, streaming: StreamingSettings) -> None:
    """Raise ConfigError where the rows cannot be shared out among the ranks; names the settings."""
    processes, parts = training.num_processes, training.num_processes * training.accumulation_steps
    if training.global_batch_size < parts:
        times = f" x accumulation_steps={training.accumulation_steps}" if training.accumulation_steps > 1 else ""
        raise ConfigError(
            f"training.global_batch_size={training.global_batch_size} has fewer rows than "
            f"training.num_processes={processes}{times} parts; raise it, or lower the others"
        )
    if processes > streaming.lanes:
        raise ConfigError(
            f"training.num_processes={processes} is more than streaming.lanes={streaming.lanes}; set streaming.lanes to "
            f"{processes}, for equal shares, or to a multiple"
        )
    mixing.check_batch(
        training.mix,
        "training.mix",
        batch_size=training.global_batch_size,
        lanes=streaming.lanes,
        batch_name="training.global_batch_size",
        lanes_name="streaming.lanes",
    )


def check_mix(training: TrainingSettings, task: Task) -> None:
    """Raise ConfigError where pictures of rows of this task cannot be mixed."""
    if training.mix.is_on and not task.has_mixtures:
        raise ConfigError(
            f"training.mix: a mixed picture is of two classes in shares, but task.kind={task.kind} has none, and the number "
            f"between two pictures' numbers need not be that of their mixture; leave training.mix out, or choose task.kind: "
            f"binary or multiclass"
        )


def check_pictures(training: TrainingSettings, task: Task, tensors: Tensors) -> None:
    """Raise ConfigError where what is done to pictures in training does not fit the task, or the tensors of a row."""
    check_augment(tensors.pictures, training.augment)
    check_mix(training, task)
    names = [spec.name for spec in tensors.specs if spec.columns]
    if training.mix.is_on and (len(names) != 1 or not tensors.pictures):
        raise ConfigError(
            f"training.mix: a model that reads mixed rows reads one picture of each and nothing else, and this one reads "
            f"{', '.join(names)}; leave training.mix out, or the other features"
        )


@dataclass(frozen=True)
class Functions:
    """A model and a loss given as functions in place of those of the settings; None: as the settings say."""

    model: Callable[..., Any] | None = None
    """Function of (tensors, number of outputs) that returns the torch module."""
    loss: Callable[..., Any] | None = None
    """Function of outputs and target that returns the loss of each row (B,), see `task.loss_of`."""


NO_FUNCTIONS = Functions()
"""Model and loss as the settings say."""


@dataclass(frozen=True)
class TrainingSpec:
    """One training run, written by the driver and read by every rank."""

    run_uri: str
    """Folder of the run, of any scheme, reachable from driver and ranks."""
    tensors: Tensors
    """Tensors that the model reads of a row."""
    task: Task
    """Task, resolved on the training rows."""
    model: Model
    training: TrainingSettings
    streaming: StreamingSettings
    attempt: int = 1
    """Number of the start of the run's ranks, from 1; each start has a folder of its own for what its ranks leave."""
    members: Mapping[str, "TrainingSpec"] = field(default_factory=dict)
    """Member of an ensemble -> its run, below this one; see `members.expanded`."""

    def at(self, run_uri: str) -> "TrainingSpec":
        """Return the spec of the same run in another folder."""
        spec = replace(self, run_uri=run_uri)
        return replace(spec, members={name: of.at(spec.member_uri(name)) for name, of in self.members.items()})

    def member_uri(self, name: str) -> str:
        """Return the folder of a member of an ensemble."""
        return storage.join(self.run_uri, "members", name)

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
    def code_uri(self) -> str:
        """The source of a model given as a function, as it was when the run began."""
        return storage.join(self.run_uri, "code.json")

    @property
    def initial_uri(self) -> str:
        """The weights that training begins with, where the model does not begin at random."""
        return storage.join(self.run_uri, "initial.safetensors")

    @property
    def checkpoints_uri(self) -> str:
        """Folder of the checkpoints from which a restart goes on, one folder each."""
        return storage.join(self.run_uri, "checkpoints")

    @property
    def snapshot_uris(self) -> tuple[str, ...]:
        """Folders of the weights at the ends of the schedule's cycles, a checkpoint each; none where there is one cycle."""
        cycles = self.training.optimizer.cycles
        return tuple(storage.join(self.run_uri, "cycles", f"{cycle + 1:03d}") for cycle in range(cycles) if cycles > 1)

    @property
    def best_uri(self) -> str:
        """The weights of the best epoch, as a checkpoint of their own."""
        return storage.join(self.run_uri, "best")

    @property
    def best_metric(self) -> str:
        """Validation metric of the best checkpoint.

        Raises:
            ConfigError: training.best is not one of the task's.
        """
        return self.task.metric(self.training.best, setting="training.best")

    def identity(self, table: str) -> dict[str, Any]:
        """Return all that decides the trained weights, for a table of fingerprint `table`."""
        training = self.training.model_dump(mode="json")
        streaming = self.streaming.model_dump(mode="json")
        return {
            "table": table,
            "tensors": self.tensors.to_json(),
            "task": json.loads(self.task.to_json()),
            "model": self.model.identity(),
            "training": {key: value for key, value in training.items() if key not in _NOT_TRAINED},
            "streaming": {key: streaming[key] for key in _ORDER},
            **({"members": {name: of.identity(table) for name, of in self.members.items()}} if self.members else {}),
        }

    def digest(self, table: str) -> str:
        """Return 16 hex digits of the identity."""
        return storage.digest(self.identity(table))[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "run_uri": self.run_uri,
            "tensors": self.tensors.to_json(),
            "task": json.loads(self.task.to_json()),
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "streaming": self.streaming.model_dump(mode="json"),
            "attempt": self.attempt,
            "members": {name: of.to_json() for name, of in self.members.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TrainingSpec":
        # Not strict: the settings were validated when they were configured, and JSON has lists for tuples.
        return cls(
            run_uri=value["run_uri"],
            tensors=Tensors.from_json(value["tensors"]),
            task=tasks.from_json(json.dumps(value["task"])),
            model=models.from_json(value["model"]),
            training=TrainingSettings.model_validate(value["training"], strict=False),
            streaming=StreamingSettings.model_validate(value["streaming"], strict=False),
            attempt=value["attempt"],
            members={name: cls.from_json(of) for name, of in value.get("members", {}).items()},
        )

    def save(self) -> str:
        """Write the spec into its attempt's folder and return its URI."""
        storage.write_sealed(self.uri, self.to_json())
        return self.uri

    @classmethod
    def load(cls, uri: str) -> "TrainingSpec":
        """Return the spec that `save` wrote; raises DamagedFile where the file is another."""
        return cls.from_json(storage.read_sealed(uri))
