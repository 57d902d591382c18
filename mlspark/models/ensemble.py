"""kind: ensemble, several models whose predictions are combined: settings."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mlspark.errors import ConfigError, MlsparkError
from mlspark.features.tensors import Tensors
from mlspark.models.model import Model
from mlspark.models.single_kinds import SINGLE, union
from mlspark.section import Section
from mlspark.tasks.losses import QuantileLoss
from mlspark.tasks.task import Task

if TYPE_CHECKING:
    SingleSettings = Model
else:
    SingleSettings = union(SINGLE)

_NAME = r"[A-Za-z0-9][\w-]*"


class MemberSettings(Section):
    """One member, or several of one kind: a `model` that is trained, or a registered `version` as it is."""

    name: Annotated[str, Field(pattern=rf"^({_NAME})?$")] = ""
    """Name in reports, files and MLflow; empty: the kind of the model, or name and number of the version."""
    model: SingleSettings | None = None
    """Model that is trained, of any kind but ensemble."""
    version: Annotated[str, Field(pattern=r"^(.+(/[1-9]\d*|@[\w-]+))?$")] = ""
    """Registered version that is taken as it is, as NAME/3 or NAME@alias. Contract, task and features must be those of the
    table that is trained on."""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the version's manifest, which is checked; empty: noted with the run."""
    training: Mapping[str, Any] = {}
    """Settings of the section `training` that this member has instead, like {epochs: 30, optimizer: {momentum: 0.8}}."""
    seed: int | None = None
    """Seed of the member, and with `repeat` of the first; unset: training.seed and the number of the members before it."""
    repeat: Annotated[int, Field(ge=1)] = 1
    """Number of members that are trained alike, but for their seeds, which follow one another."""
    snapshots: Annotated[int, Field(ge=0)] = 0
    """Members of one training: the weights at the ends of so many cycles of a learning rate that falls along a cosine and
    begins anew (Huang et al., ICLR 2017); a divisor of training.epochs. 0: one member, the best epoch."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> "MemberSettings":
        if bool(self.version) == (self.model is not None):
            raise ValueError("give either model or version")
        if self.version and (self.training or self.seed is not None or self.repeat > 1 or self.snapshots):
            raise ValueError("a version is taken as it is; leave training, seed, repeat and snapshots out")
        if self.sha256 and not self.version:
            raise ValueError("sha256 is that of a version; leave it out")
        if self.seed is not None and "seed" in self.training:
            raise ValueError("give the seed once: as seed, or as training.seed")
        if self.model is not None and self.model.learner != "network" and self.snapshots:
            raise ValueError(f"snapshots: model.kind={self.model.kind} is trained without a learning rate's schedule")
        if self.snapshots == 1:
            raise ValueError("snapshots: 1 is a single member; leave it out, or give 2 or more")
        return self

    @property
    def own_name(self) -> str:
        """The name, or what stands for it."""
        if self.name:
            return self.name
        return re.sub(r"\W+", "-", self.version).strip("-") if self.model is None else self.model.kind


@contextmanager
def of_member(name: str) -> Iterator[None]:
    """Have errors within name a member of an ensemble; those of a model alone ("") stay as they are."""
    try:
        yield
    except MlsparkError as error:
        if not name:
            raise
        raise type(error)(f"model.members: {name}: {error}") from error


@dataclass(frozen=True)
class MemberRun:
    """A member as it comes about: one training of `settings.model`, or a version."""

    name: str
    settings: MemberSettings
    place: int
    """Number of trainings before it."""
    repetition: int = 0
    """Number of those before it that have the same settings."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members that come of it: several with snapshots."""
        return tuple(f"{self.name}-{number}" for number in range(1, self.settings.snapshots + 1)) or (self.name,)


class EnsembleSettings(Model):
    """Members that are trained one after another on the same rows, or registered already, and how they are combined."""

    learner: ClassVar[str] = "ensemble"
    takes: ClassVar[tuple[str, ...]] = ("dense", "ids", "pictures")

    kind: Literal["ensemble"] = "ensemble"
    members: Annotated[tuple[MemberSettings, ...], Field(min_length=1)]
    combine: Literal["mean", "weighted", "vote", "stacking"] = "mean"
    """mean: the mean of probabilities, of numbers that of predictions on the scale of the loss. weighted: with weights of at
    least 0, together 1, that have the least loss on validation rows. vote: the share of members to which a class is the most
    probable, ties decided by the mean. stacking: a logistic regression on the members' logits, for numbers a ridge
    regression on their predictions, fitted on validation rows."""

    @model_validator(mode="after")
    def _members_have_names(self) -> "EnsembleSettings":
        names = [name for run in self.runs() for name in run.names]
        folded = [name.casefold() for name in names]  # folders of some disks do not tell upper case from lower case
        twice = sorted({name for name in folded if folded.count(name) > 1})
        if twice:
            raise ValueError(f"members: {', '.join(twice)}: named twice; give each another name")
        if len(names) < 2:
            raise ValueError("members: an ensemble has at least 2; add one, or set repeat or snapshots")
        return self

    def runs(self) -> Iterator[MemberRun]:
        """Yield the members in order, `repeat` written out, each with a name of its own: numbered where they share one."""
        of_name: Counter[str] = Counter()
        for member in self.members:
            of_name[member.own_name] += member.repeat
        numbers: Counter[str] = Counter()
        place = 0
        for member in self.members:
            for repetition in range(member.repeat):
                name = member.own_name
                numbers[name] += 1
                is_alone = member.repeat == 1 if member.name else of_name[name] == 1
                yield MemberRun(name if is_alone else f"{name}-{numbers[name]}", member, place, repetition)
                place += member.model is not None

    @property
    def models(self) -> tuple[Model, ...]:
        return tuple(member.model for member in self.members if member.model is not None)

    def check(self, task: Task) -> None:
        """See `Model.check`."""
        if self.combine == "vote" and task.link == "none":
            raise ConfigError(
                f"model.combine=vote: task.kind={task.kind} has no classes; choose mean, weighted or stacking"
            )
        if self.combine == "stacking" and isinstance(getattr(task, "loss", None), QuantileLoss):
            raise ConfigError("model.combine=stacking predicts no quantiles; choose mean or weighted")
        for run in self.runs():
            if run.settings.model is not None:
                with of_member(run.name):
                    run.settings.model.check(task)

    def chosen(self, tensors: Tensors) -> Tensors:
        """Return what some member reads: of a version all."""
        of_all = super().chosen(tensors)
        if any(member.model is None for member in self.members):
            return of_all
        return of_all.only({spec.name for model in self.models for spec in model.chosen(of_all).specs})

    def check_tensors(self, tensors: Tensors) -> None:
        """See `Model.check_tensors`."""
        for run in self.runs():
            if run.settings.model is not None:
                with of_member(run.name):
                    run.settings.model.check_tensors(run.settings.model.chosen(tensors))

    def distributions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for model in self.models for name in model.distributions()))

    def modules(self) -> list[str]:
        return [name for model in self.models for name in model.modules()]

    def identity(self) -> dict[str, Any]:
        """See `Model.identity`. The members' trainings have identities of their own."""
        versions = [member.sha256 or member.version for member in self.members if member.version]
        return {
            "kind": self.kind,
            "members": [name for run in self.runs() for name in run.names],
            "combine": self.combine,
            "versions": versions,
        }
