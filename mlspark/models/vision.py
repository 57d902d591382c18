"""kind: vision, a network of timm, torchvision or mlspark by name for each picture, columns beside it: its settings."""

import logging
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors
from mlspark.models import architectures
from mlspark.models.model import Network
from mlspark.tasks.task import Task

if TYPE_CHECKING:
    from mlspark.models.backbones import Plan
    from mlspark.models.vision_net import VisionNet

logger = logging.getLogger(__name__)


class VisionSettings(Network):
    """A backbone for each picture, whose features meet the floats and embedded ids of the row in a head (late fusion)."""

    takes: ClassVar[tuple[str, ...]] = ("dense", "ids", "pictures")

    kind: Literal["vision"] = "vision"
    backbone: str
    """Network, such as resnet50: one that `mlspark models` lists, any other of timm by its name there, or of torchvision as
    torchvision/NAME. Nothing is downloaded, see `weights`."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """First layers. standard: as published, for pictures of about 224 pixels. small: a convolution of 3 x 3 pixels that
    keeps the size, and no pooling. auto: small for pictures with a side under 64 pixels where the network has such a stem;
    the log says which."""
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the residual branches that are left out in training, of the last one; the share grows with depth."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the inputs of the head's linear layer that is set to 0 in training."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Widths of the head's hidden layers."""
    embedding_dim_max: Annotated[int, Field(ge=1)] = 16
    """Upper bound of the width of an ids column's embedding; small vocabularies get less."""
    checkpoint_gradients: bool = False
    """Whether activations are computed again in the backward pass instead of kept: less memory, a third more time, the same
    weights. Not all networks can."""
    test_time: Annotated[tuple[Literal["flip"], ...], Field(max_length=1)] = ()
    """Further views of a row's pictures, over which its outputs are averaged wherever the model is not trained: in
    validation, evaluation and scoring, at the cost of a forward pass each. flip: all pictures mirrored left to right."""

    @property
    def name(self) -> str:
        return f"model.backbone={self.backbone}"

    def check(self, task: Task) -> None:
        """See `Model.check`. A name that only timm or torchvision knows is looked up where they are installed."""
        if self.backbone in architectures.KNOWN or architectures.is_installed():
            architectures.find(self.backbone)

    def check_tensors(self, tensors: Tensors) -> None:
        """See `Model.check_tensors`. Builds each backbone on torch's meta device, which takes a second or so."""
        super().check_tensors(tensors)
        if not tensors.pictures:
            raise ConfigError(
                f"{self.name} needs a picture; give features.inputs one of kind image, or use model.kind=tabular"
            )
        self.remarks(tensors)

    def build(self, tensors: Tensors, num_outputs: int) -> "VisionNet":
        from mlspark.models import backbones
        from mlspark.models.vision_net import VisionNet

        return VisionNet(
            {name: backbones.make(plan, called=name) for name, plan in self._plans(tensors).items()},
            tensors,
            num_outputs,
            hidden=self.hidden,
            embedding_dim_max=self.embedding_dim_max,
            dropout=self.dropout,
            checkpoint_gradients=self.checkpoint_gradients,
            flips="flip" in self.test_time,
        )

    def remarks(self, tensors: Tensors) -> list[str]:
        from mlspark.models import backbones

        lines = []
        for name, plan in self._plans(tensors).items():
            trial = backbones.attempt(plan, called=name)
            stem = "small" if trial.has_small_stem else "standard"
            if self.stem == "auto" and plan.wants_small_stem:
                why = "as" if trial.has_small_stem else "the network has no small one, though"
                stem += f" ({why} a side is under {backbones.SMALL_UNDER} pixels)"
            lines.append(
                f"{self.backbone} of {plan.architecture.package} for {name} ({plan.channels} x {plan.height} x "
                f"{plan.width}): {trial.num_parameters:,} parameters, {trial.num_features:,} features, stem {stem}"
            )
        return lines

    def distributions(self) -> tuple[str, ...]:
        package = architectures.find(self.backbone).package
        return {"mlspark": (), "timm": ("timm", "torchvision"), "torchvision": ("timm", "torchvision")}[package]

    def _plans(self, tensors: Tensors) -> "dict[str, Plan]":
        """Return picture -> what is to be built for it."""
        from mlspark.models import backbones

        return {
            name: backbones.plan_of(
                self.backbone,
                spec,
                stem=self.stem,
                drop_path=self.drop_path,
                checkpoint_gradients=self.checkpoint_gradients,
            )
            for name, spec in tensors.pictures.items()
        }
