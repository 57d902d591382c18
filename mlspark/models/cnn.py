"""kind: cnn, a small convolutional network: its settings."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors
from mlspark.models.model import Network

if TYPE_CHECKING:
    from mlspark.models.cnn_net import CnnNet


class CnnSettings(Network):
    """Stages of convolutions, each at half the size of the one before, then the mean over all places and a linear layer.

    Each picture has stages of its own; their means, and the floats of the row, meet in the linear layer.
    """

    takes: ClassVar[tuple[str, ...]] = ("dense", "pictures")

    kind: Literal["cnn"] = "cnn"
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (32, 64, 128)
    """Channels of each stage."""
    depth: Annotated[int, Field(ge=1)] = 2
    """Convolutions (3 x 3) of each stage."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation after each convolution. batch: over the rows of a rank's batch, see training.sync_batch_norm. group:
    over the row alone, in groups of 8 channels or more, so that in training, too, outputs depend on no other row."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the inputs of the linear layer that is set to 0 in training."""
    test_time: Annotated[tuple[Literal["flip"], ...], Field(max_length=1)] = ()
    """Further views of a row's pictures, over which its outputs are averaged wherever the model is not trained: in
    validation, evaluation and scoring, at the cost of a forward pass each. flip: all pictures mirrored left to right."""

    def build(self, tensors: Tensors, num_outputs: int) -> "CnnNet":
        from mlspark.models.cnn_net import CnnNet

        self.check_tensors(tensors)
        return CnnNet(
            tensors.pictures,
            tensors.num_dense,
            num_outputs,
            widths=self.widths,
            depth=self.depth,
            norm=self.norm,
            dropout=self.dropout,
            flips="flip" in self.test_time,
        )

    def check_tensors(self, tensors: Tensors) -> None:
        super().check_tensors(tensors)
        if not tensors.pictures:
            raise ConfigError(
                f"{self.name} needs a picture; give features.inputs one of kind image, or use model.kind=tabular"
            )
