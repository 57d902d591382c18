"""Newest version -> version in use, or not: SPARK_CONF_DIR=conf spark-submit jobs/promote.py --config conf/census.yaml"""

from mlspark.commands import job
from mlspark.commands.promote import promote

if __name__ == "__main__":
    job.start(promote)
