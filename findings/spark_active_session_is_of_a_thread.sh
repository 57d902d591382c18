#!/usr/bin/env bash
# SparkSession.getActiveSession() is None in another Python thread, though a session runs and sql() works there.
#
# Package: pyspark 4.2.0; needs Java 17 or 21.
# Expected: a process has one session, made by builder.getOrCreate(), and getActiveSession() returns it wherever it is asked,
#           as it does in the thread that made it.
# Seen:     "active" is a value of one thread of Java, and each Python thread has a Java thread of its own. In a thread of a
#           pool getActiveSession() is None, while SparkSession.active() finds the session as the default one, and the pool's
#           thread can use it. The same befalls the first thread when its connection to Java was closed, as an interruption
#           does, because the next call opens another.
# So:       a library that takes "the running session" when none is given must ask SparkSession.active(), or a job that is
#           started from a pool, or again after Ctrl-C in a notebook, is told that there is no session.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0

cat > probe.py <<'PY'
import sys
from concurrent.futures import ThreadPoolExecutor

import pyspark
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()


def look() -> tuple[bool, bool, int]:
    return SparkSession.getActiveSession() is spark, SparkSession.active() is spark, spark.sql("select 7").first()[0]


here = look()
with ThreadPoolExecutor(1) as pool:
    there = pool.submit(look).result()
spark.stop()
print("pyspark", pyspark.__version__)
for name, (is_active, is_found, value) in (("the thread that made it", here), ("a thread of a pool", there)):
    print(f"{name}: getActiveSession() {'it' if is_active else None}, active() {'it' if is_found else None}, select {value}")
same = here == (True, True, 7) and there == (False, True, 7)
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
SPARK_LOCAL_IP=127.0.0.1 venv/bin/python probe.py 2> /dev/null
