#!/usr/bin/env bash
# Java keeps no archive of Spark's classes (AppCDS) where the folder of settings, which Spark puts first, holds a file.
#
# Packages: pyspark 4.2.0 (setuptools below 82), Java 17.
# Expected: -XX:ArchiveClassesAtExit writes the classes that a job has loaded, and the next job maps them in place of reading and
#           checking them (a fifth to a quarter of a small job's processor time). Folders have no classes that could be kept.
# Seen:     Spark's class path is `SPARK_CONF_DIR/:SPARK_HOME/jars/*`. With an empty folder in front the archive is written; with
#           spark-defaults.conf in it Java refuses the whole of it at exit, with status 1 and "Cannot have non-empty directory
#           in paths". The same folder behind the jars is no reason.
# So:       give Java a class path of its own, jars first: "-cp JARS/*:CONF/" in SPARK_SUBMIT_OPTS counts over Spark's.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pyspark==4.2.0 'setuptools<82'
cat > job.py <<'PY'
from pyspark.sql import SparkSession

SparkSession.builder.master("local[1]").getOrCreate().range(3).count()
PY
mkdir empty full
echo 'spark.ui.enabled false' > full/spark-defaults.conf
home=$(venv/bin/python -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
export SPARK_LOCAL_IP=127.0.0.1 PYSPARK_PYTHON=$dir/venv/bin/python

# case NAME CONF OPTIONS: runs the job, says whether there is an archive
kept() {
  SPARK_CONF_DIR=$dir/$2 SPARK_SUBMIT_OPTS="-XX:ArchiveClassesAtExit=$dir/$1.jsa $3" venv/bin/spark-submit job.py > "$1.log" 2>&1 || true
  if [ -s "$1.jsa" ]; then found=kept; else found=refused; fi
  grep -ho 'Cannot have non-empty directory in paths' "$1.log" | head -1 || true
  echo "$1: $found"
  echo "$1 $found" >> seen.txt
}
kept empty-in-front empty ""
kept full-in-front full ""
kept full-behind full "-cp $home/jars/*:$dir/full/"
diff seen.txt - <<'SEEN'
empty-in-front kept
full-in-front refused
full-behind kept
SEEN
