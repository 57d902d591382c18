#!/usr/bin/env bash
# SparkContext.stop() of pyspark waits for up to a second after Spark has stopped, once a task of the session has run Python.
#
# Packages: pyspark 4.2.0 (needs Java 17 or later).
# Expected: stop() takes what Spark's Java takes to stop; what is left in Python is closing a socket.
# Seen:     it ends the thread that hears of accumulators, whoever uses them. Once a Python worker has run, Java holds a
#           connection to that thread, which looks once a second whether it is to end, counted from the last task: a stop a
#           tenth of a second after the look waits .8 s, with Java's part already over. Without Python workers it is the half
#           second of socketserver at most. Scripts with a UDF end so much later, half a second on average.
# So:       where the process ends anyway, drop the thread before: context._accumulatorServer = None; context.stop().
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0

cat > probe.py <<'PY'
import sys
import time

from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
context = spark.sparkContext
context.setLogLevel("ERROR")
if sys.argv[1] == "python":
    context.parallelize([0], 1).map(lambda row: row).collect()
else:
    spark.range(1).collect()
ended = time.monotonic()
context._jsc.stop()  # Java's part
time.sleep(1 - (time.monotonic() - ended - 0.1) % 1)  # a tenth after a whole second since the job
started = time.monotonic()
context.stop()  # Python's
print(round(time.monotonic() - started, 2))
PY
for task in python sql; do
    seen=$(SPARK_LOCAL_IP=127.0.0.1 venv/bin/python probe.py $task 2>errors) || { cat errors; exit 1; }
    echo "$task: $seen s"
    case $task in
        python) venv/bin/python -c "import sys; sys.exit(not 0.65 < $seen)" || { echo "changed"; exit 1; } ;;
        sql) venv/bin/python -c "import sys; sys.exit(not $seen < 0.65)" || { echo "changed"; exit 1; } ;;
    esac
done
