"""Raw rows + model version -> scores: SPARK_CONF_DIR=conf spark-submit jobs/score.py --config conf/census.yaml"""

from mlspark.commands import begin_spark

begin_spark("score")  # beside the imports that follow

from mlspark.commands import job, options
from mlspark.stages.check import check_score


def main(config: options.Config, set_: options.Overrides = None, report: options.Report = None) -> None:
    """Score raw rows with a registered model version; bad rows go to the quarantine of scores with their reasons."""
    job.run("score", job.later("score"), check_score, config, set_, report)


if __name__ == "__main__":
    job.start(main)
