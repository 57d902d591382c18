#!/usr/bin/env bash
# Delta's writer sorts the rows of each task by a partition column that is a literal; Spark's Parquet writer does not.
#
# Packages: pyspark 4.2.0, delta-spark 4.4.0 (and its jar io.delta:delta-spark_4.2_2.13:4.4.0, from Maven); needs Java 17 or 21.
# Expected: writing one partition, `df.withColumn("day", lit("..."))` with `partitionBy("day")`, as daily jobs do, streams rows
#           to the file: there is nothing to sort by, and Spark's optimizer knows that a literal needs no sorting.
# Seen:     Spark's Parquet writer sorts nothing. Delta plans its write by itself: every row goes through a sorter, which
#           takes 16 MiB or more for each task and spills to disk what does not fit. Allowing one writer at a time,
#           spark.sql.maxConcurrentOutputFileWriters=1 (of its own 0), makes Delta write rows as they come.
# So:       set it around writes of one partition. More partitions than writers are sorted from there on, so nothing is lost.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0 delta-spark==4.4.0

cat > probe.py <<'PY'
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

builder = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.log.level", "OFF")
    .config("spark.jars.packages", "io.delta:delta-spark_4.2_2.13:4.4.0")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
)
spark = builder.getOrCreate()
context = spark.sparkContext
scala = context._jsc.sc()


def sorter_memory():
    scala.listenerBus().waitUntilEmpty()
    none, empty = context._gateway.new_array(context._jvm.double, 0), context._jvm.java.util.ArrayList()
    stages = scala.statusStore().stageList(None, False, False, none, empty)
    return {stages.apply(at).stageId(): stages.apply(at).peakExecutionMemory() for at in range(stages.size())}


rows = spark.range(5000, numPartitions=1).withColumn("day", F.lit("2024-01-02"))
for kind, writers in (("parquet", "0"), ("delta", "0"), ("delta", "1")):
    spark.conf.set("spark.sql.maxConcurrentOutputFileWriters", writers)
    before = sorter_memory()
    folder = f"table-{kind}-{writers}"
    rows.write.format(kind).partitionBy("day").save(folder)
    most = max(memory for stage, memory in sorter_memory().items() if stage not in before)
    assert spark.read.format(kind).load(folder).count() == 5000
    print(kind, "writers", writers, "not sorted" if most == 0 else "sorted" if most > 2**20 else most)
PY
SPARK_LOCAL_IP=127.0.0.1 venv/bin/python probe.py 2> errors > seen || { tail -20 errors; exit 1; }
cat seen
diff - seen <<'SEEN'
parquet writers 0 not sorted
delta writers 0 sorted
delta writers 1 not sorted
SEEN
