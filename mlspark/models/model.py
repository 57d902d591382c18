"""What every model's settings have in common."""

from typing import TYPE_CHECKING, Any, ClassVar

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

    @property
    def name(self) -> str:
        """How errors call it."""
        return f"model.kind={self.kind}"

    def check(self, task: "Task") -> None:
        """Check that this kind of model can learn a task, whose classes need not be known yet.

        Raises:
            ConfigError: it cannot; names the setting.
        """

    def check_tensors(self, tensors: "Tensors") -> None:
        """Check that this kind of model can read the tensors of a feature table.

        Raises:
            ConfigError: it cannot; names features and remedy.
        """
        if tensors.cardinalities and "ids" not in self.takes:
            columns = ", ".join(tensors.columns("ids"))
            raise ConfigError(
                f"{self.name} takes no ids ({columns}); make floats of them, by kind one_hot, or use model.kind=custom"
            )
        if tensors.pictures and "pictures" not in self.takes:
            raise ConfigError(
                f"{self.name} takes no pictures ({', '.join(tensors.pictures)}); use model.kind=cnn, softmax or custom, or "
                f"leave features of kind image out"
            )

    def build(self, tensors: "Tensors", num_outputs: int) -> "nn.Module":
        """Return the torch module with random weights drawn from torch's global generator.

        Its forward takes each of the tensors by name (dense (B, F) float32, ids (B, K) int64, pictures (B, C, H, W) uint8)
        and returns (B, num_outputs), in training also (B, M, num_outputs) of M members with a loss each.

        Raises:
            ConfigError: the settings make no network, or not one for these tensors.
        """
        raise NotImplementedError(f"{type(self).__name__} is not a network")

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
