"""Encoded rows in the files of a feature table: the same rows in the same places, whatever the cluster. Driver, lazy."""

import math
from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlspark.contracts.own_columns import GROUP, ROW_ID, SPLIT
from mlspark.features import split
from mlspark.features.counts import fold as fold_sql
from mlspark.features.encode_spark import encoded_sql, named
from mlspark.features.encoder import Encoder

_ROWS_PER_FILE = 1_000_000
"""Most rows of a file of features: some 60 MB of 15 columns."""
_BYTES_PER_FILE = 512 * 2**20
"""Bytes of pictures that a file of features should have at most: one task writes it."""


def placed(
    good: DataFrame,
    encoder: Encoder,
    labels: Mapping[str, str],
    *,
    num_rows: int,
    folds: int,
    was_fitted: bool,
) -> DataFrame:
    """Return the encoded rows, the same rows in the same files in the same order whatever the cluster.

    Args:
        good: rows with the encoder's inputs, `ROW_ID`, `SPLIT`, `GROUP` and what `labels` need.
        encoder: fitted.
        labels: columns that come from the target: name -> SQL.
        num_rows: of `good`; decides the number of files.
        folds: for cross-validation, a column `fold`; 0: none.
        was_fitted: whether the encoder was fitted on the training rows among these: they are encoded out of their fold.
    """
    is_training = f"{SPLIT} = '{split.TRAIN}'" if was_fitted else None
    prepared, features = encoded_sql(good, encoder, is_training=is_training, row_hash=GROUP)
    fold = {"fold": fold_sql(GROUP, folds)} if folds else {}
    rows = prepared.selectExpr(*named({**features, **labels, **fold, "row_id": ROW_ID, "split": SPLIT}))
    rows_per_file = _ROWS_PER_FILE
    if encoder.images:
        row_bytes = math.ceil(sum(image.stored_bytes for image in encoder.images))
        rows_per_file = max(1, min(_ROWS_PER_FILE, _BYTES_PER_FILE // row_bytes))
    placed_rows = rows.repartition(max(1, -(-num_rows // rows_per_file)), "row_id")
    # By all that can differ: rows with the same hash are the same but for label and weight, and what was joined to them.
    targets = [name for name in ("label", "weight") if name in rows.columns]
    outputs = (F.col(output.name) if output.picture is None else F.sha2(output.name, 256) for output in encoder.outputs)
    return placed_rows.sortWithinPartitions("split", "row_id", *targets, *outputs)
