"""What is scored, and with which version. Driver."""

from mlspark.section import Section
from mlspark.sources.catalog import AnySource


class ScoringSettings(Section):
    source: AnySource | None = None
    """Source of the raw rows to score."""
    model: int | str = "champion"
    """Version number or alias of the registered model to score with."""
