"""What is scored, and with which version. Driver."""

from mlspark.section import Section
from mlspark.sources.catalog import AnySource


class ScoringSettings(Section):
    source: AnySource | None = None
    """Source of the raw rows to score."""
    keep: tuple[str, ...] = ()
    """Further columns of `source`, by their names there, that the score table gets as they are. It has the contract's
    columns, key and label among them, anyway."""
    model: int | str = "champion"
    """Version number or alias of the registered model to score with."""
    beside: tuple[int | str, ...] = ()
    """Further versions, numbers or aliases, that score the same rows in the same pass: the source is read and checked once,
    and each version's scores are a part of the score table of their own. Their contract must be that of `model`."""
    allow_decoder: bool = False
    """Whether pictures are scored although they are decoded by another library, or version of one, than in training."""
