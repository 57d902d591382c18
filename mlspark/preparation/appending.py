"""New data for a prepared table: which parts are new, which keys are known, how the rows have shifted. Driver."""

import logging
from collections.abc import Mapping
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage, tables
from mlspark.config import DriftSettings
from mlspark.contracts import spark as conforming
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError, SourceError
from mlspark.features import spark as features
from mlspark.features.counting import finite
from mlspark.features.encoder import MISSING_ID, UNSEEN_ID, Categorical, Encoder, Indexed, Numeric
from mlspark.preparation.prepared import Prepared
from mlspark.sources.source import Source

logger = logging.getLogger(__name__)

_SHOWN = 3
_KNOWN = ("name", "columns", "values", "counts", "nulls", "rare")


def check_settings(in_force: Prepared, *, contract: Contract, features_fingerprint: str, transform: int) -> None:
    """Refuse to append rows of another making.

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


def new_parts(found: Mapping[str, Source], in_force: Prepared) -> dict[str, Source]:
    """Return the sources restricted to parts that no preparation in force has taken; sources without any are left out.

    Raises:
        SourceError: a part that was taken has changed since.
    """
    taken: dict[str, dict[str, str]] = {}
    for commit_id in in_force.metadata["ids"]:
        for name, parts in storage.read_json(tables.sidecar(in_force.table, commit_id, "parts.json")).items():
            taken.setdefault(name, {}).update(parts)
    new = {}
    for name, source in found.items():
        known = taken.get(name, {})
        changed = [part.name for part in source.parts if known.get(part.name, part.state) != part.state]
        if changed:
            raise SourceError(
                f"{source.uri}: changed since version {in_force.version} took it: {', '.join(changed[:_SHOWN])}"
                f"{f' and {len(changed) - _SHOWN} more' if len(changed) > _SHOWN else ''}; its rows cannot be told from "
                f"those in force: use --mode rebuild"
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
        "row_id", F.lit(True).alias("_is_known")
    )
    joined = conformed.join(known.distinct(), on="row_id", how="left")
    return conforming.add_reason(
        joined, F.col("_is_known").isNotNull(), column=",".join(contract.unique_key), rule="unique"
    ).drop("_is_known")


def shift(good: DataFrame, encoder: Encoder, limits: DriftSettings) -> dict[str, Any]:
    """Return how new good rows differ from those that the encoder was fitted on, and warn past the limits. One job.

    Returns:
        {"columns": {feature: {"unseen_share" or "mean_shift" in standard deviations of the fit, "missing_shift"}},
        "warnings": [...]}; shares are of the new rows, shifts are new minus fitted.
    """
    numbers = [feature for feature in encoder.features if isinstance(feature, Numeric)]
    categories = [feature for feature in encoder.features if isinstance(feature, Categorical)]
    means = {f"_mean{place}": F.expr(finite(features.value(number))) for place, number in enumerate(numbers)}
    known = [Indexed(**{name: getattr(feature, name) for name in _KNOWN}) for feature in categories]
    ids = features.encode(good.withColumns(means), encoder.model_copy(update={"features": tuple(known)}), *means)
    sums = [F.count("*").alias("rows")]
    sums += [what(name).alias(f"{what.__name__}{name}") for name in means for what in (F.avg, F.count)]
    for feature in categories:
        sums += [F.count_if(F.col(feature.name) == UNSEEN_ID).alias(f"unseen_{feature.name}")]
        sums += [F.count_if(F.col(feature.name) == MISSING_ID).alias(f"missing_{feature.name}")]
    [found] = ids.agg(*sums).collect()
    rows = found["rows"]
    columns: dict[str, dict[str, float]] = {}
    warnings = []
    fitted_nulls = {number.name: number.statistics.nulls for number in numbers}
    fitted_nulls |= {category.name: category.nulls for category in categories}
    missing_now = {number.name: rows - found[f"count_mean{place}"] for place, number in enumerate(numbers)}
    missing_now |= {category.name: found[f"missing_{category.name}"] for category in categories}
    for name, nulls in fitted_nulls.items():
        missing = missing_now[name] / rows - nulls / encoder.rows
        columns[name] = {"missing_shift": missing}
        if abs(missing) > limits.max_missing_shift:
            warnings.append(f"{name}: share of missing values moved by {missing:+.3f} (drift.max_missing_shift)")
    for place, number in enumerate(numbers):
        mean = found[f"avg_mean{place}"]
        fitted = number.statistics
        moved = 0.0 if mean is None or not fitted.count else (mean - fitted.mean) / (fitted.std or 1.0)
        columns[number.name]["mean_shift"] = moved
        if abs(moved) > limits.max_mean_shift:
            warnings.append(f"{number.name}: mean moved by {moved:+.2f} standard deviations (drift.max_mean_shift)")
    for category in categories:
        share = found[f"unseen_{category.name}"] / rows
        columns[category.name]["unseen_share"] = share
        if share > limits.max_unseen_share:
            warnings.append(
                f"{category.name}: {share:.1%} of the rows have an unseen category (drift.max_unseen_share)"
            )
    for warning in warnings:
        logger.warning("drift: %s; --mode rebuild would fit the encoder anew", warning)
    return {"columns": columns, "warnings": warnings}
