"""kind: custom, a network that a function of the user's own makes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors
from mlspark.models.model import Network
from mlspark.section import function_at

if TYPE_CHECKING:
    from torch import nn


class CustomSettings(Network):
    """What `factory` returns."""

    takes: ClassVar[tuple[str, ...]] = ("dense", "ids", "pictures")

    kind: Literal["custom"] = "custom"
    factory: str
    """Function as package.module:function, called with (features.tensors.Tensors, number of outputs); returns the torch
    module, whose forward takes each tensor by name, dense (B, F) float32, ids (B, K) int64 and each picture (B, C, H, W)
    uint8, and returns (B, number of outputs); in training it may return those of M members, (B, M, number of outputs), each
    with a loss of its own. `mlspark.models.pictures.Normalized` makes floats of a picture."""

    @property
    def name(self) -> str:
        return self.factory

    def build(self, tensors: Tensors, num_outputs: int) -> "nn.Module":
        return called(function_at(self.factory, "model.factory"), tensors, num_outputs, self.factory)

    def modules(self) -> list[str]:
        return [self.factory.partition(":")[0]]


def called(factory: Callable[..., Any], tensors: Tensors, num_outputs: int, name: str) -> "nn.Module":
    """Return the module that `factory` makes.

    Raises:
        ConfigError: it makes something else.
    """
    from torch import nn

    model = factory(tensors, num_outputs)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    return model
