"""New data for a prepared table: which parts are new, which keys are known already. Driver."""

import logging
from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import tables
from mlspark.contracts import check_spark
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import PREFIX, ROW_ID
from mlspark.errors import ConfigError, SourceError
from mlspark.features.kinds.image import other_decoder
from mlspark.features.prepared import Prepared
from mlspark.sources.source import Source

logger = logging.getLogger(__name__)

_SHOWN = 3
_IS_KNOWN = f"{PREFIX}is_known"


def check_settings(in_force: Prepared, *, contract: Contract, features_fingerprint: str, transform: int) -> None:
    """Refuse to append rows of another making, or pictures that would be decoded otherwise.

    Raises:
        ConfigError: names what differs from the rows in force.
    """
    wanted = {"contract": contract.fingerprint, "features": features_fingerprint, "transform_version": transform}
    changed = [name for name, value in wanted.items() if in_force.metadata[name] != value]
    if changed:
        raise ConfigError(
            f"{in_force.table}: {', '.join(changed)} changed since version {in_force.version}, so new rows would not fit "
            f"the old ones; use --mode rebuild, or the settings in "
            f"{tables.sidecar(in_force.table, in_force.metadata['id'], 'config.yaml')}"
        )
    if problem := other_decoder(in_force.encoder.images):
        raise ConfigError(f"{in_force.table}: {problem}; install those, or use --mode rebuild")


def new_parts(sources: Mapping[str, Source], in_force: Prepared) -> dict[str, Source]:
    """Return the sources restricted to parts that no preparation in force has taken; sources without any are left out.

    Raises:
        SourceError: a part that was taken has changed since.
    """
    taken: dict[str, dict[str, str]] = {}
    for commit_id in in_force.metadata["ids"]:
        for name, parts in tables.read_sidecar(in_force.table, commit_id, "parts.json").items():
            taken.setdefault(name, {}).update(parts)
    new = {}
    for name, source in sources.items():
        known = taken.get(name, {})
        changed = [part.name for part in source.parts if known.get(part.name, part.state) != part.state]
        if changed:
            raise SourceError(
                f"{source.uri}: changed since version {in_force.version} took it: {', '.join(changed[:_SHOWN])}"
                f"{f' and {len(changed) - _SHOWN} more' if len(changed) > _SHOWN else ''}; its rows cannot be "
                f"distinguished from those in force: use --mode rebuild"
            )
        parts = tuple(part for part in source.parts if part.name not in known)
        logger.info("%s: %d of %d parts are new", name, len(parts), len(source.parts))
        if parts:
            new[name] = source.with_parts(parts)
    return new


def without_known_keys(spark: SparkSession, conformed: DataFrame, contract: Contract, in_force: Prepared) -> DataFrame:
    """Return conformed rows with a reason for those whose unique key a row in force has already.

    Compares row_id, which is the hash of the key where a contract has one.
    """
    known = tables.read(spark, in_force.table, version=in_force.version).select(
        F.col("row_id").alias(ROW_ID), F.lit(True).alias(_IS_KNOWN)
    )
    joined = conformed.join(known.distinct(), on=ROW_ID, how="left")
    return check_spark.add_reason(
        joined, F.col(_IS_KNOWN).isNotNull(), column=",".join(contract.unique_key), rule="unique"
    ).drop(_IS_KNOWN)
