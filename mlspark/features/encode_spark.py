"""The encoder on Spark: native expressions only, so that a row never leaves the JVM, but for pictures. Driver, lazy."""

from collections.abc import Iterator, Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.features.encoder import Encoder
from mlspark.features.kinds.sql_text import SqlSteps


def encode(
    rows: DataFrame, encoder: Encoder, *keep: str, is_training: str | None = None, row_hash: str = "row_id"
) -> DataFrame:
    """Return the encoded columns, `encoder.outputs` in order, then those of `rows` to keep; see `encoded_sql`."""
    prepared, outputs = encoded_sql(rows, encoder, is_training=is_training, row_hash=row_hash)
    return prepared.selectExpr(*named(outputs), *(f"`{name}`" for name in keep))


def encoded(rows: DataFrame, encoder: Encoder) -> tuple[DataFrame, list[Column]]:
    """Return what `encoded_sql` does of rows to be scored, the outputs as columns of their names."""
    prepared, outputs = encoded_sql(rows, encoder)
    return prepared, [F.expr(sql).alias(name) for name, sql in outputs.items()]


def encoded_sql(
    rows: DataFrame, encoder: Encoder, *, is_training: str | None = None, row_hash: str = "row_id"
) -> tuple[DataFrame, dict[str, str]]:
    """Return `rows` with further columns, and over them name -> SQL of `encoder.outputs` in order, never null.

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
            rows = rows.selectExpr("*", *named({name: sql for sql, name in step.items()}))
    return rows, {output.name: sql for output, sql in zip(encoder.outputs, outputs, strict=True)}


def named(columns: Mapping[str, str]) -> Iterator[str]:
    """Yield columns, name -> SQL, as `selectExpr` takes them.

    As texts, since a `Column` of Python is half a dozen calls of Java: 1,543 of them took 1.5 seconds.
    """
    return (f"{sql} AS `{name}`" for name, sql in columns.items())
