#!/usr/bin/env bash
# predict_batch_udf takes its return type as text, says so in its documentation, and then fails on every row.
#
# Packages: pyspark 4.2.0, numpy 2.4.6, pandas 2.3.3, pyarrow 25.0.1; needs Java 17 or 21.
# Expected: `return_type` is "DataType or str" by its documentation and annotation, as for pandas_udf, so return_type="float"
#           does what FloatType() does.
# Seen:     the function is made, the query is planned, and the result has the column's type; then each task fails with
#           "ValueError: Unsupported return type", as what the model returned is held against the text itself. So it is for
#           scalars, arrays and structs alike: text never works.
# So:       give predict_batch_udf a DataType; DataType.fromDDL("float") makes one of text.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0 numpy==2.4.6 pandas==2.3.3 pyarrow==25.0.1

cat > probe.py <<'PY'
import sys

import numpy as np
import pyspark
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import DataType

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.log.level", "OFF")
    .getOrCreate()
)
rows = spark.range(3).selectExpr("CAST(id AS FLOAT) AS x")


def halves():
    return lambda x: x / 2


def pairs():
    return lambda x: np.stack([x, x], axis=1)


def named():
    return lambda x: {"half": x / 2}


def found(make, of):
    scored = rows.select(predict_batch_udf(make, return_type=of, batch_size=2)("x").alias("y"))
    try:
        return len(scored.collect())
    except Exception as error:
        return "Unsupported return type" if "ValueError: Unsupported return type" in str(error) else "another error"


seen = {text: (found(make, DataType.fromDDL(text)), found(make, text))
        for text, make in (("float", halves), ("array<float>", pairs), ("struct<half: float>", named))}
print("pyspark", pyspark.__version__, "on Python", sys.version.split()[0])
print("expected: 3 rows by a DataType, and 3 by text")
for text, both in seen.items():
    print(f"seen:     {text}: {both[0]}, {both[1]}")
same = all(both == (3, "Unsupported return type") for both in seen.values())
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
SPARK_LOCAL_IP=127.0.0.1 PYSPARK_PYTHON=venv/bin/python venv/bin/python probe.py 2>/dev/null
