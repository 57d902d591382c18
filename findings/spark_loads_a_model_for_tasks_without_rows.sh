#!/usr/bin/env bash
# A Parquet file of one row group makes several tasks in Spark, and a model is loaded in the Python worker of each, rows or not.
#
# Packages: pyspark 4.2.0, numpy 2.4.6, pandas 2.3.3, pyarrow 25.0.1; needs Java 17 or 21.
# Expected: a file is split where its row groups are, or a task that reads no row calls no Python. What a pandas UDF of
#           iterators does before its loop, and the function that predict_batch_udf is given to make a predictor, runs where
#           there is a row to predict.
# Seen:     Spark cuts the file's bytes by its size and the cores, as it would a text file; the row group is read by the task
#           that its middle falls to. The other tasks start a Python worker all the same, and both kinds of UDF load the
#           model in it: with torch that is seconds of a processor for each task without rows.
# So:       load the model inside the loop, at the first batch; write Parquet in row groups no larger than a task's share.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0 numpy==2.4.6 pandas==2.3.3 pyarrow==25.0.1

cat > probe.py <<'PY'
import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType


def load_model(kind):
    with open(f"loaded/{kind}-{TaskContext.get().partitionId()}", "w"):
        pass


@F.pandas_udf(DoubleType())
def by_iterator(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
    load_model("iterator")
    for batch in batches:
        yield batch


def make_predict():
    load_model("batches")
    return lambda values: values


os.mkdir("loaded")
values = np.random.default_rng(0).random(3_000_000)
pq.write_table(pa.table({"x": values}), "rows.parquet", row_group_size=len(values))
assert pq.ParquetFile("rows.parquet").num_row_groups == 1
builder = SparkSession.builder.master("local[4]").config("spark.ui.enabled", "false")
spark = builder.config("spark.log.level", "OFF").getOrCreate()
rows = spark.read.parquet("rows.parquet")
filled = rows.groupBy(F.spark_partition_id()).count().count()
print("tasks", rows.rdd.getNumPartitions(), "with rows", filled)
by_batches = predict_batch_udf(lambda: make_predict(), return_type=DoubleType(), batch_size=100_000)
for kind, function in (("iterator", by_iterator), ("batches", by_batches)):
    rows.select(F.sum(function("x"))).collect()
    print(kind, "loaded in", sum(name.startswith(kind) for name in os.listdir("loaded")))
PY
seen=$(SPARK_LOCAL_IP=127.0.0.1 PYSPARK_PYTHON=venv/bin/python venv/bin/python probe.py 2>errors) || { cat errors; exit 1; }
echo "$seen"
[ "$seen" = $'tasks 4 with rows 1\niterator loaded in 4\nbatches loaded in 4' ] || { echo "changed"; exit 1; }
