#!/usr/bin/env bash
# Keep Spark's classes as Java has them in memory, for conf/spark-env.sh to start Java with: 200 MB in the user's cache folder.
# Usage: scripts/java_archive.sh VENV    (called by setup.sh; safe to run again, and twice at once)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1/bin

export SPARK_CONF_DIR=$PWD/conf SPARK_LOCAL_IP=127.0.0.1 MLSPARK_DATA=$PWD/tests/data
export PYSPARK_PYTHON=$bin/python PYSPARK_DRIVER_PYTHON=$bin/python
unset SPARK_HOME HADOOP_CONF_DIR YARN_CONF_DIR SPARK_DIST_CLASSPATH SPARK_PREPEND_CLASSES PYTHONPATH
SPARK_HOME=$("$bin/python" -c 'from pyspark.find_spark_home import _find_spark_home; print(_find_spark_home())')
archive=$(. conf/spark-env.sh && printf %s "$mlspark_archive")
mkdir -p "$(dirname "$archive")"
work=$(mktemp -d "$archive.XXXXXX")  # beside it, so that it gets its name at once and whole
trap 'rm -rf "$work"' EXIT

MLSPARK_WRITES_JAVA_ARCHIVE=$work/new.jsa MLSPARK_HOME=$work/home \
  "$bin/spark-submit" jobs/prepare.py --config conf/census.yaml
[ -s "$work/new.jsa" ]
size=$(($(wc -c <"$work/new.jsa")))
rm -f "$archive"-*.jsa
mv -f "$work/new.jsa" "$archive-$size.jsa"
printf '%s\n' "$archive-$size.jsa"
