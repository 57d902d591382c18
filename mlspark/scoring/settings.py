"""What is scored, and with which version. Driver."""

from typing import Annotated

from pydantic import Field, model_validator

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
    files_at_once: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Files (of Hive partitions) of `source` that are scored and committed together; a run scores those that are new, each
    once, and goes on where one that was killed stopped. 0: the whole source is scored as one."""
    replace: str = ""
    """SQL condition over columns of the score table, like `day = DATE'2024-01-31'`: in the commit that brings the scores,
    earlier ones that satisfy it, of the same version, are taken out. The scored rows must satisfy it: see
    `source.filter`."""
    explain: Annotated[int, Field(ge=0)] = 0
    """Raw columns that `contributions` of each row names, those that add most to its prediction; 0: no such column."""
    allow_decoder: bool = False
    """Whether pictures are scored although they are decoded by another library, or version of one, than in training."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "ScoringSettings":
        if self.replace and self.files_at_once:
            raise ValueError(
                "replace and files_at_once: choose one; later files would replace the scores of earlier ones"
            )
        if self.files_at_once and self.source is not None:
            if self.source.kind in _IN_ONE_PIECE:
                raise ValueError(f"files_at_once: a source of kind {self.source.kind} is read as one; leave it out")
            if getattr(self.source, "manifest", None) is not None:
                raise ValueError("files_at_once: files of a source with a manifest are read with it; leave it out")
        return self


_IN_ONE_PIECE = ("delta", "jdbc", "idx")
"""Kinds of source that have no files, or files that belong together."""
