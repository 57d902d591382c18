"""The encoder on Spark: native expressions only, so that a row never leaves the JVM, but for pictures. Driver, lazy."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.features.encoder import Encoder
from mlspark.features.kinds.sql_text import SqlSteps


def encode(
    rows: DataFrame, encoder: Encoder, *keep: str, is_training: str | None = None, row_hash: str = "row_id"
) -> DataFrame:
    """Return the encoded columns, `encoder.outputs` in order, then those of `rows` to keep; see `encoded`."""
    prepared, columns = encoded(rows, encoder, is_training=is_training, row_hash=row_hash)
    return prepared.select(*columns, *keep)


def encoded(
    rows: DataFrame, encoder: Encoder, *, is_training: str | None = None, row_hash: str = "row_id"
) -> tuple[DataFrame, list[Column]]:
    """Return `rows` with further columns, and of them `encoder.outputs` in order, never null.

    Floats, ints for ids, and the bytes of pictures as the feature table holds them.

    Args:
        rows: conformed rows with `encoder.inputs`, and what `intake.pictures.look` found in pictures.
        encoder: fitted.
        is_training: SQL condition of the rows that the encoder was fitted on, to be encoded out of their fold. Rows to be
            scored are not among them.
        row_hash: column by which `fit` put these rows into folds.
    """
    steps = SqlSteps(encoder.inputs, row_hash, is_training)
    outputs = [sql for feature in encoder.features for sql in feature.to_sql(steps)]
    # Each step computes what the next one uses several times.
    for step in steps.steps:
        if step:
            rows = rows.withColumns({name: F.expr(sql) for sql, name in step.items()})
    return rows, [F.expr(sql).alias(output.name) for sql, output in zip(outputs, encoder.outputs, strict=True)]
