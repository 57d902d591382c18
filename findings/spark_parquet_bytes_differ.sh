#!/usr/bin/env bash
# Spark writes the same rows to Parquet files of the same size whose bytes differ from run to run.
#
# Packages: pyspark 4.2.0 (needs Java 17 or later on the PATH).
# Expected: one partition in one order, written twice by the same version with the same settings,
#           gives the same bytes, so a hash of the file tells whether the data changed.
# Seen:     within one JVM the files are equal, which hides it. Each new JVM may list the encodings
#           of a column in another order in the footer: same size, same data pages, another hash.
# So:       hash the rows, or the bytes before the footer, but not the file.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0

cat > write.py <<'PY'
import glob
import hashlib
import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
rows = spark.range(0, 20000, 1, 1).selectExpr("id", "cast(id % 7 as string) s", "id / 3.0 x")
for copy in ("a", "b"):
    rows.write.parquet(f"{sys.argv[1]}/{copy}")
    (name,) = glob.glob(f"{sys.argv[1]}/{copy}/*.parquet")
    with open(name, "rb") as file:
        data = file.read()
    footer = int.from_bytes(data[-8:-4], "little")  # its length, just before the closing PAR1
    pages = hashlib.sha256(data[: -8 - footer]).hexdigest()[:8]
    print(sys.argv[1], len(data), pages, hashlib.sha256(data).hexdigest()[:8])
PY
unset SPARK_HOME SPARK_CONF_DIR
export SPARK_LOCAL_IP=127.0.0.1 PYSPARK_PYTHON="$dir/venv/bin/python"
venv/bin/python -c 'import pyspark; print("pyspark", pyspark.__version__)'
java -version 2>&1 | head -n 1
for run in 1 2 3 4 5; do  # two runs can agree by luck; stop once they do not
  venv/bin/python write.py "run$run" >> seen.txt 2> log.txt || { cat log.txt >&2; exit 1; }
  files=$(awk '{print $4}' seen.txt | sort -u | wc -l)
  [ "$files" -lt 2 ] || break
done
pages=$(awk '{print $2, $3}' seen.txt | sort -u | wc -l)
echo "expected: one hash for all files"
echo "seen:     run, size, hash of the bytes before the footer, hash of the file:"
cat seen.txt
if [ "$pages" -eq 1 ] && [ "$files" -gt 1 ]; then
  echo reproduced
else
  echo "the behaviour has changed"
  exit 1
fi
