"""kind: tabm, many networks for rows of a table that share their weights: its settings."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mlspark.features.tensors import Tensors
from mlspark.models.tabular import RowNetwork

if TYPE_CHECKING:
    from mlspark.models.tabm_net import TabmNet


class TabmSettings(RowNetwork):
    """An embedding per column, numbers included, then the hidden layers of several networks, whose outputs are averaged.

    The members share all but a few scales, so that they cost little more memory than one; a step takes about as long as with
    layers `members` times as wide (Gorishniy et al., ICLR 2025).
    """

    kind: Literal["tabm"] = "tabm"
    members: Annotated[int, Field(ge=1)] = 16
    """Networks in one."""
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (192, 192)
    """Widths of the hidden layers."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Share of a hidden layer's outputs that is set to 0 in training."""

    def build(self, tensors: Tensors, num_outputs: int) -> "TabmNet":
        """Return a network of dense and ids; either may be absent."""
        from mlspark.models.tabm_net import TabmNet

        return TabmNet(
            tensors.num_dense,
            tensors.cardinalities,
            num_outputs=num_outputs,
            members=self.members,
            hidden=self.hidden,
            dropout=self.dropout,
            **self.embedding,
        )
