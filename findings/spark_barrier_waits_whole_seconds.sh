#!/usr/bin/env bash
# In a barrier stage of Spark, each call of barrier() or allGather() takes a whole second, however close the tasks are.
#
# Packages: pyspark 4.2.0 (needs Java 17 or later).
# Expected: tasks go on as soon as the last of them has asked: milliseconds, where all are threads of one machine.
# Seen:     a task looks for the answer once a second, counted from its own question, the last one to ask as the others:
#           seven calls of two tasks that do nothing else take a second each (a look that comes first, now and then, none).
#           TorchDistributor has its tasks agree on a port by a call, so each start of a training takes a second longer.
# So:       agree before the stage on what the driver can know; synchronise ranks by their own means, as torch.distributed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0

cat > probe.py <<'PY'
import statistics
import time

from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")


def ask(rows):
    context = BarrierTaskContext.get()
    for ask in (context.barrier, context.allGather):
        for _ in range(7):
            started = time.monotonic()
            ask()
            yield ask.__name__, time.monotonic() - started


took = spark.sparkContext.parallelize([0, 1], 2).barrier().mapPartitions(ask).collect()
spark.stop()
for name in ("barrier", "allGather"):
    seconds = statistics.median(each for called, each in took if called == name)
    print(f"{name}: {seconds:.1f} s")
    assert seconds > 0.9, "changed"
PY
SPARK_LOCAL_IP=127.0.0.1 venv/bin/python probe.py 2>errors || { cat errors; exit 1; }
