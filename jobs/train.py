"""Feature table -> registered model version: SPARK_CONF_DIR=conf spark-submit jobs/train.py --config conf/census.yaml"""

from mlspark.commands import begin_spark

begin_spark("train")  # beside the imports that follow

from mlspark.commands import job, options
from mlspark.stages.check import check_train


def main(config: options.Config, set_: options.Overrides = None, report: options.Report = None) -> None:
    """Train on the newest feature table with distributed ranks, evaluate on the test rows and register a model version."""
    job.run("train", job.later("train"), check_train, config, set_, report, shows_stages=False)


if __name__ == "__main__":
    job.start(main)
