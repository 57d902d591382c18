"""From settings to a module with fresh weights."""

from torch import nn

from mlspark.config import ModelSettings
from mlspark.features.layout import Layout
from mlspark.models.tabular import TabularNet


def build(settings: ModelSettings, layout: Layout) -> nn.Module:
    """Return the model that `settings` ask for, for batches of `layout`, with random weights of torch's generator.

    Its forward takes dense (B, F) float32 and categorical (B, K) int64 and gives logits (B,) float32.
    """
    return TabularNet(
        len(layout.dense),
        layout.cardinalities,
        hidden=settings.hidden,
        embedding_dim_max=settings.embedding_dim_max,
        dropout=settings.dropout,
    )
