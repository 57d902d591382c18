"""What a preparation starts from: contract, sources, joins, and the id that says whether it was done before. Driver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from mlspark import storage, tables
from mlspark.contracts.contract import Contract
from mlspark.features import prepared
from mlspark.features.prepared import Prepared
from mlspark.intake import joins as joining
from mlspark.intake import pictures
from mlspark.intake.joins import Join
from mlspark.pictures import decoder
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.sources.source import Source
from mlspark.stages import append as appending
from mlspark.stages.check import check_prepare
from mlspark.tables import Commit

TRANSFORM_VERSION = 8
"""Part of every preparation's id; raise it when the same rows and settings would yield other features."""


@dataclass(frozen=True)
class Preparation:
    """What is to be prepared, as it was found."""

    table: str
    """URI of the feature table."""
    contract: Contract
    sources: Mapping[str, Source]
    """Sources whose rows are taken; with append only their new parts."""
    read: Mapping[str, Source]
    """All sources and joined ones as they were before a row was read."""
    joins: tuple[Join, ...]
    base: Commit | None
    """The newest commit of the table."""
    in_force: Prepared | None
    """Version that rows are added to; None unless the mode is append."""
    commit_id: str
    """Hash of everything that decides the features: equal ids mean equal rows."""

    @property
    def is_done(self) -> bool:
        """Whether the newest version holds just this, or there is nothing to append."""
        return self.base is not None and (self.base.metadata["id"] == self.commit_id or not self.sources)

    def metadata(self, settings: Settings, *, mode: str) -> dict[str, Any]:
        """Return what a commit of these rows says of its making."""
        return {
            "id": self.commit_id,
            "ids": [*(self.in_force.metadata["ids"] if self.in_force else ()), self.commit_id],
            "mode": mode,
            "contract": self.contract.fingerprint,
            "features": fingerprint(settings),
            "transform_version": TRANSFORM_VERSION,
        }


def plan(spark: SparkSession, settings: Settings, *, mode: str) -> Preparation:
    """Return what `mode` ("rebuild" or "append") has to prepare. Reads no row, but for checksums of databases.

    Raises:
        SourceError: a source is absent, empty or cannot be reached.
        ContractError: a contract file is wrong.
        FeatureError: the joins, the task or the features do not fit the contract.
        ConfigError: the split does not fit the contract; append to a table of other settings, or to none.
    """
    contract, table = check_prepare(settings), settings.table("features")
    all_sources = find_sources(spark, settings)
    joins = joining.find(spark, settings.joins, root=settings.sources.root)
    base = tables.latest(table)
    sources, in_force = all_sources, None
    if mode == "append":
        in_force = prepared.latest(table)
        appending.check_settings(
            in_force, contract=contract, features_fingerprint=fingerprint(settings), transform=TRANSFORM_VERSION
        )
        sources = appending.new_parts(all_sources, in_force)
    return Preparation(
        table=table,
        contract=contract,
        sources=sources,
        read={**all_sources, **{join.settings.name: join.source for join in joins}},
        joins=joins,
        base=base,
        in_force=in_force,
        commit_id=_commit_id(settings, contract, sources, joins, in_force),
    )


def find_sources(spark: SparkSession, settings: Settings) -> dict[str, Source]:
    """Return the configured sources as they are now: learn, validation, test.

    Raises:
        SourceError: one is absent, empty or cannot be reached.
    """
    root = settings.sources.root
    return {name: catalog.find(spark, source, root=root) for name, source in settings.sources.rows.items()}


def fingerprint(settings: Settings) -> str:
    """Return the hash of the settings that decide what a row becomes."""
    decides = {
        "features": settings.features.model_dump(),
        "task": settings.task.label_settings,
        "split": settings.split.model_dump(),
        "joins": [join.model_dump(exclude={"source"}) for join in settings.joins],
    }
    return storage.digest(decides)


def _commit_id(
    settings: Settings,
    contract: Contract,
    sources: Mapping[str, Source],
    joins: Sequence[Join],
    in_force: Prepared | None,
) -> str:
    decides = {
        "after": in_force.metadata["id"] if in_force else "",
        "transform": TRANSFORM_VERSION,
        "sources": {name: source.identity for name, source in sources.items()},
        "joins": {join.settings.name: join.identity for join in joins},
        "contract": contract.fingerprint,
        "features": settings.features.model_dump(),
        "task": settings.task.label_settings,
        "split": settings.split.model_dump(),
        **({"decoder": decoder.version()} if pictures.declared(settings.features) else {}),
    }
    return storage.digest(decides)[:32]
