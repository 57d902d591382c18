#!/usr/bin/env bash
# The first lower() or upper() of a Spark session takes a second or more of processor time, however few rows there are.
#
# Packages: pyspark 4.2.0 (setuptools below 82), Java 17.
# Expected: `lower` of one row costs about what `reverse` of one row does: some hundredths of a second to plan and compile.
# Seen:     both case functions go through ICU (spark.sql.icu.caseMappings.enabled is on), and the class that holds their helper
#           asks ICU, when it is first used, for the title case of every character of Unicode: a second to three on one core,
#           once in each Java, so also in each executor. The second query with it is quick; with the setting off the first is.
# So:       in jobs on few rows compare without case by a regular expression, (?i), or turn the setting off.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0 'setuptools<82'

cat > probe.py <<'PY'
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
spark = builder.config("spark.sql.icu.caseMappings.enabled", sys.argv[1]).getOrCreate()
spark.sparkContext.setLogLevel("OFF")
rows = spark.range(1).selectExpr("cast(id AS string) AS text")


def seconds(function):
    started = time.perf_counter()
    rows.select(function(F.concat(F.lit(f"{started}"), "text"))).collect()
    return time.perf_counter() - started


for _ in range(3):  # Java and Spark are warm
    seconds(F.reverse)
print(*(f"{each:.3f}" for each in (seconds(F.reverse), seconds(F.lower), seconds(F.lower))))
spark.stop()
PY
for icu in true false; do
  read -r reverse first second <<< "$(SPARK_LOCAL_IP=127.0.0.1 venv/bin/python probe.py $icu 2> /dev/null)"
  echo "icu.caseMappings=$icu: reverse $reverse s, first lower $first s, second lower $second s"
  awk -v f="$first" -v s="$second" -v icu=$icu 'BEGIN { is_slow = f > 4 * s && f > 0.5; exit is_slow != (icu == "true") }'
done
