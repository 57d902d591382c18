"""Score table + late labels -> alarms: SPARK_CONF_DIR=conf spark-submit jobs/monitor.py --config conf/census.yaml"""

from mlspark.commands import begin_spark

begin_spark("monitor")  # beside the imports that follow

from mlspark.commands import job
from mlspark.commands.monitor import main

if __name__ == "__main__":
    job.start(main)
