"""Raw rows + model version -> scores: SPARK_CONF_DIR=conf spark-submit jobs/score.py --config conf/census.yaml"""

from mlspark import command
from mlspark.scoring.batch import score


def main(config: command.Config, set_: command.Overrides = None, report: command.Report = None) -> None:
    """Score raw rows with a registered model version; bad rows go to the quarantine of scores with their reasons."""
    command.run("score", score, config, set_, report)


if __name__ == "__main__":
    command.start(main)
