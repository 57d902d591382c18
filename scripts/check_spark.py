"""Start Spark with this folder's settings and write one Delta table: exit status 0 when both work."""

import tempfile

from pyspark.sql import SparkSession

with tempfile.TemporaryDirectory() as folder:
    spark = SparkSession.builder.appName("setup").getOrCreate()
    spark.range(1).write.format("delta").save(f"{folder}/table")
    assert spark.read.format("delta").load(f"{folder}/table").count() == 1
    spark.stop()
