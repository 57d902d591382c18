"""What every model's settings have in common."""

import difflib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mlspark.errors import ConfigError
from mlspark.models.initial import InitialWeights
from mlspark.section import Section

if TYPE_CHECKING:
    from torch import nn

    from mlspark.features.tensors import Tensors
    from mlspark.tasks.task import Task


class Model(Section):
    """Settings of a model. A subclass has the fields `kind`, its name in YAML, and what else it needs."""

    learner: ClassVar[str] = "network"
    """Learner of this kind of model: a key of `training.learner.KINDS`."""
    takes: ClassVar[tuple[str, ...]] = ("dense", "ids")
    """Tensors that it can read: dense, ids, pictures."""

    kind: str
    inputs: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Tensors that the model reads, of those that the features make: dense (all floats), ids (all categories), and each
    picture by the name of its feature. Left out: all of them. The others are not even streamed."""

    @property
    def name(self) -> str:
        """How errors call it."""
        return f"model.kind={self.kind}"

    def check(self, task: "Task") -> None:
        """Check that this kind of model can learn a task, whose classes need not be known yet.

        Raises:
            ConfigError: it cannot; names the setting.
        """

    def chosen(self, tensors: "Tensors") -> "Tensors":
        """Return those of a feature table's tensors that `inputs` names.

        Raises:
            ConfigError: the table has no tensor of such a name.
        """
        if self.inputs is None:
            return tensors
        known = [spec.name for spec in tensors.specs]
        for name in self.inputs:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
                raise ConfigError(f"model.inputs names {name}, which the features do not make; {hint}")
        return tensors.only(self.inputs)

    def check_tensors(self, tensors: "Tensors") -> None:
        """Check that this kind of model can read the tensors of a feature table, of which it has chosen.

        Raises:
            ConfigError: it cannot; names features and remedy.
        """
        if tensors.cardinalities and "ids" not in self.takes:
            columns = ", ".join(tensors.columns("ids"))
            raise ConfigError(
                f"{self.name} takes no ids ({columns}); make floats of them, by kind one_hot, leave them out by "
                f"model.inputs, or use model.kind=vision or custom"
            )
        if tensors.pictures and "pictures" not in self.takes:
            raise ConfigError(
                f"{self.name} takes no pictures ({', '.join(tensors.pictures)}); use model.kind=vision, cnn, softmax or "
                f"custom, or leave them out by model.inputs"
            )

    def build(self, tensors: "Tensors", num_outputs: int) -> "nn.Module":
        """Return the torch module with random weights drawn from torch's global generator.

        Its forward takes each of the tensors by name (dense (B, F) float32, ids (B, K) int64, pictures (B, C, H, W) uint8)
        and returns (B, num_outputs), in training also (B, M, num_outputs) of M members with a loss each.

        Raises:
            ConfigError: the settings make no network, or not one for these tensors.
        """
        raise NotImplementedError(f"{type(self).__name__} is not a network")

    def remarks(self, tensors: "Tensors") -> list[str]:
        """Return what a person should read about the model of these tensors, a line each: what was decided for them."""
        return []

    def distributions(self) -> tuple[str, ...]:
        """Return the distributions that the network needs besides torch, where it is trained and where it scores."""
        return ()

    def modules(self) -> list[str]:
        """Return the names of modules that executors must be able to import."""
        return []

    @property
    def initial(self) -> InitialWeights | None:
        """Weights that training begins with; None: random ones."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what of the settings decides the trained weights, as JSON."""
        return self.model_dump(mode="json")


class Network(Model):
    """Settings of a model that ranks train by torch."""

    weights: InitialWeights | None = None
    """Weights that training begins with: of a file, a registered version, a package; random unless given."""

    @property
    def initial(self) -> InitialWeights | None:
        return self.weights

    def identity(self) -> dict[str, Any]:
        weights = None if self.weights is None else self.weights.identity()
        return {**super().identity(), "weights": weights}
