"""kind: softmax, one linear layer over pixels and floats: its settings."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mlspark.features.tensors import Tensors
from mlspark.models.model import Network

if TYPE_CHECKING:
    from mlspark.models.softmax_net import SoftmaxNet


class SoftmaxSettings(Network):
    """One linear layer over the pixels of all pictures and the floats, which starts at zero.

    With several classes this is softmax regression, with two logistic, with a number linear.
    """

    takes: ClassVar[tuple[str, ...]] = ("dense", "pictures")

    kind: Literal["softmax"] = "softmax"

    def build(self, tensors: Tensors, num_outputs: int) -> "SoftmaxNet":
        from mlspark.models.softmax_net import SoftmaxNet

        self.check_tensors(tensors)
        return SoftmaxNet(tensors.pictures, tensors.num_dense, num_outputs)
