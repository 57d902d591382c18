"""Feature table -> registered model version: SPARK_CONF_DIR=conf spark-submit jobs/train.py --config conf/census.yaml"""

from mlspark import command
from mlspark.train import train


def main(config: command.Config, set_: command.Overrides = None, report: command.Report = None) -> None:
    """Train on the newest feature table with distributed ranks, evaluate on the test rows and register a model version."""
    command.run("train", train, config, set_, report)


if __name__ == "__main__":
    command.start(main)
