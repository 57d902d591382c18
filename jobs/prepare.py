"""Raw rows -> feature table: SPARK_CONF_DIR=conf spark-submit jobs/prepare.py --config conf/census.yaml"""

from mlspark import command
from mlspark.preparation.prepare import prepare


def main(config: command.Config, set_: command.Overrides = None, report: command.Report = None) -> None:
    """Build the feature table from raw rows; bad rows go to the quarantine table with their reasons."""
    command.run("prepare", prepare, config, set_, report)


if __name__ == "__main__":
    command.start(main)
