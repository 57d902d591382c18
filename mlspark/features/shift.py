"""How new rows differ from those that an encoder was fitted on, with limits past which it is warned of. Driver."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlspark.contracts.own_columns import PREFIX
from mlspark.features.counts import finite
from mlspark.features.encode_spark import encode
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.categories import MISSING_ID, UNSEEN_ID, FittedCategories
from mlspark.features.kinds.image import looked_sql
from mlspark.features.kinds.index import Indexed
from mlspark.features.kinds.numbers import FittedNumber
from mlspark.section import Section

logger = logging.getLogger(__name__)

_COLOURS = ("red", "green", "blue", "alpha")
_KNOWN = ("name", "columns", "values", "counts", "nulls", "rare")


class ShiftSettings(Section):
    """Past these, `prepare --mode append` warns that the new rows are not like those that the encoder was fitted on."""

    max_unseen_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Share of the new rows with an unseen category above which append warns."""
    max_mean_shift: Annotated[float, Field(ge=0.0)] = 0.25
    """Distance of a number's mean from the fitted one, in fitted standard deviations, above which append warns."""
    max_missing_shift: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Change of a column's share of missing values above which append warns."""


def shift(good: DataFrame, encoder: Encoder, limits: ShiftSettings) -> dict[str, Any]:
    """Return how new good rows differ from those that the encoder was fitted on, and warn past the limits. One job.

    Returns:
        {"columns": {feature: {"unseen_share" or "mean_shift" in standard deviations of the fit, "missing_shift"}; of
        pictures that are normalised "photo.red" and so on: {"mean_shift"}}, "warnings": [...]}; shares are of the new rows,
        shifts are new minus fitted.
    """
    numbers = [feature for feature in encoder.features if isinstance(feature, FittedNumber)]
    categories = [feature for feature in encoder.features if isinstance(feature, FittedCategories)]
    means = {f"{PREFIX}mean{place}": F.expr(finite(number.value_sql)) for place, number in enumerate(numbers)}
    known = [Indexed(**{name: getattr(feature, name) for name in _KNOWN}) for feature in categories]
    of_known = encoder.model_copy(update={"features": tuple(known)})
    channels = {f"{PREFIX}channel{place}": channel for place, channel in enumerate(_channels(encoder))}
    found = {name: F.expr(channel.mean_sql) for name, channel in channels.items()}
    ids = encode(good.withColumns(means | found), of_known, *means, *found)
    sums = [F.count("*").alias("rows")]
    sums += [what(name).alias(f"{what.__name__}{name}") for name in means for what in (F.avg, F.count)]
    for feature, output in zip(categories, of_known.outputs, strict=True):
        sums += [F.count_if(F.col(output.name) == UNSEEN_ID).alias(f"unseen_{feature.name}")]
        sums += [F.count_if(F.col(output.name) == MISSING_ID).alias(f"missing_{feature.name}")]
    [statistics] = ids.agg(*sums, *(F.avg(name).alias(name) for name in channels)).collect()
    rows = statistics["rows"]
    columns: dict[str, dict[str, float]] = {}
    warnings = []
    fitted_nulls = {number.name: number.statistics.nulls for number in numbers}
    fitted_nulls |= {category.name: category.nulls for category in categories}
    missing_now = {number.name: rows - statistics[f"count{PREFIX}mean{place}"] for place, number in enumerate(numbers)}
    missing_now |= {category.name: statistics[f"missing_{category.name}"] for category in categories}
    for name, nulls in fitted_nulls.items():
        missing = missing_now[name] / rows - nulls / encoder.rows
        columns[name] = {"missing_shift": missing}
        if abs(missing) > limits.max_missing_shift:
            warnings.append(f"{name}: share of missing values moved by {missing:+.3f} (shift.max_missing_shift)")
    for place, number in enumerate(numbers):
        mean = statistics[f"avg{PREFIX}mean{place}"]
        fitted = number.statistics
        moved = 0.0 if mean is None or not fitted.count else (mean - fitted.mean) / (fitted.std or 1.0)
        columns[number.name]["mean_shift"] = moved
        if abs(moved) > limits.max_mean_shift:
            warnings.append(f"{number.name}: mean moved by {moved:+.2f} standard deviations (shift.max_mean_shift)")
    for name, channel in channels.items():
        moved = (statistics[name] - channel.mean) / (channel.std or 1.0)
        columns[channel.name] = {"mean_shift": moved}
        if abs(moved) > limits.max_mean_shift:
            warnings.append(
                f"{channel.name}: mean moved by {moved:+.2f} standard deviations of the pixels (shift.max_mean_shift)"
            )
    for category in categories:
        share = statistics[f"unseen_{category.name}"] / rows
        columns[category.name]["unseen_share"] = share
        if share > limits.max_unseen_share:
            warnings.append(
                f"{category.name}: {share:.1%} of the rows have an unseen category (shift.max_unseen_share)"
            )
    for warning in warnings:
        logger.warning("shift: %s; --mode rebuild would fit the encoder anew", warning)
    return {"columns": columns, "warnings": warnings}


@dataclass(frozen=True)
class _Channel:
    """A channel of pictures, with what the encoder was fitted on."""

    name: str
    mean_sql: str
    """SQL of the mean of a row's pixels / 255."""
    mean: float
    std: float


def _channels(encoder: Encoder) -> Iterator[_Channel]:
    """Yield the channels of the pictures whose statistics the encoder has."""
    for image in encoder.images:
        spec = image.spec
        for place, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True)):
            name = f"{image.name}.{_COLOURS[place] if len(spec.mean) > 1 else 'grey'}"
            sums = f"{looked_sql(image.column, image.name)}.sums"
            yield _Channel(name, f"{sums}[{1 + place}] / {255 * spec.height * spec.width}.0D", mean, std)
