"""What a training run reports while it goes on: a class per event. Rank 0 sends them to the driver as JSON."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

_VALIDATION = "validation_"


@dataclass(frozen=True)
class Event:
    """The base of all of them; `name` is their "event" in JSON."""

    name: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        return {"event": self.name, **dataclasses.asdict(self)}

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> "Event":
        return cls(**value)


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Started(Event):
    """The driver starts the ranks; the first time, or again after a failure."""

    name = "started"
    attempt: int
    """Number of the run's start, from 1."""
    world_size: int
    run: str
    """Folder of the run."""


@dataclass(frozen=True)
class Resumed(Event):
    """The ranks go on from a checkpoint."""

    name = "resumed"
    epoch: int
    """Number of the epoch, from 1."""
    step: int
    """Steps of the run taken before it."""


@dataclass(frozen=True)
class Begun(Event):
    """The ranks take their first step."""

    name = "begun"
    epoch: int
    step: int


@dataclass(frozen=True)
class Progressed(Event):
    """Every few seconds of training."""

    name = "progress"
    epoch: int
    epochs: int
    step: int
    steps: int
    """Steps of the whole run."""
    train_loss: float
    """Mean loss over the epoch's rows so far."""
    learning_rate: float
    rows_per_second: float
    """Rows per second over all ranks, since the event before."""
    data_wait_fraction: float
    """Share of the epoch's time that rank 0 waited for data."""
    seconds_left: float
    """Seconds until the run's last step, at this speed."""


@dataclass(frozen=True)
class Grown(Event):
    """Every second in which trees are grown in the driver's process."""

    name = "grown"
    rounds: int
    most_rounds: int
    """Rounds after which growing ends at the latest."""


@dataclass(frozen=True)
class EpochEnded(Event):
    """An epoch is trained and validated. Figures are over all ranks."""

    name = "epoch"
    epoch: int
    epochs: int
    step: int
    learning_rate: float
    train_loss: float
    rows: int
    """Real rows trained on."""
    row_id_sum: int
    """Sum of their ids, as a signed 64-bit number that wraps around."""
    rows_per_second: float
    data_wait_fraction: float
    seconds: float
    """Time in the steps, without validation and checkpoints."""
    wait_seconds: float
    """Part of it spent waiting for data: rank 0."""
    is_best: bool
    """Whether no epoch before had a better validation metric."""
    validation: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    """The task's metrics of the validation rows by name; in JSON validation_NAME. Empty without such rows."""

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        return values | {f"{_VALIDATION}{key}": value for key, value in values.pop("validation").items()}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "EpochEnded":
        """Return the event of a JSON value with or without "event"."""
        return cls._from_json({key: figure for key, figure in value.items() if key != "event"})

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> "EpochEnded":
        metrics = {key: figure for key, figure in value.items() if key.startswith(_VALIDATION)}
        others = {key: figure for key, figure in value.items() if key not in metrics}
        return cls(**others, validation={key.removeprefix(_VALIDATION): figure for key, figure in metrics.items()})


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """A checkpoint is whole."""

    name = "checkpoint"
    step: int
    seconds: float
    """Seconds since it was submitted."""


@dataclass(frozen=True)
class StorageTrouble(Event):
    """A checkpoint could not be written and is tried again, or is written after all."""

    name = "storage"
    message: str


@dataclass(frozen=True)
class Evaluated(Event):
    """The best checkpoint is evaluated on the rows of a split."""

    name = "evaluation"
    split: str
    step: int
    metrics: Mapping[str, Any]
    """The task's metrics as JSON; in the event's JSON side by side with its other values."""

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        metrics: dict[str, Any] = values.pop("metrics")
        return values | metrics

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> "Evaluated":
        metrics = {key: figure for key, figure in value.items() if key not in ("split", "step")}
        return cls(value["split"], value["step"], metrics)


@dataclass(frozen=True)
class RankSilent(Event):
    """A rank has sent no heartbeat for too long; the others are being ended."""

    name = "silent"
    message: str


@dataclass(frozen=True)
class AttemptFailed(Event):
    """The ranks have ended without a result."""

    name = "failed"
    attempt: int
    message: str


@dataclass(frozen=True)
class Restarting(Event):
    """The ranks are about to be started again."""

    name = "restarting"
    restart: int
    """Number of the restart by this driver, from 1."""
    world_size: int
    pause: float
    """Seconds waited before it."""


@dataclass(frozen=True)
class OfMember(Event):
    """An event of a member's run, in the run of an ensemble: in JSON the event with "member" beside its values."""

    name = "member"
    member: str
    """Name of the member."""
    event: Event

    def to_json(self) -> dict[str, Any]:
        return {**self.event.to_json(), "member": self.member}


@dataclass(frozen=True)
class RunEnded(Event):
    """The last event of a driver."""

    name = "ended"
    is_finished: bool
    message: str = ""
    """Why it did not."""


_KINDS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (
        Started,
        Resumed,
        Begun,
        Progressed,
        Grown,
        EpochEnded,
        CheckpointWritten,
        StorageTrouble,
        Evaluated,
        RankSilent,
        AttemptFailed,
        Restarting,
        RunEnded,
    )
}


def from_json(value: Mapping[str, Any]) -> Event:
    """Return the event whose `to_json` is `value`; KeyError for an unknown one."""
    values = {key: figure for key, figure in value.items() if key not in ("event", "member")}
    event = _KINDS[value["event"]]._from_json(values)
    return OfMember(value["member"], event) if "member" in value else event
