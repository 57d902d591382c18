"""Raw rows -> feature table: SPARK_CONF_DIR=conf spark-submit jobs/prepare.py --config conf/census.yaml"""

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from mlspark import command
from mlspark.preparation.prepare import prepare


class Mode(StrEnum):
    REBUILD = "rebuild"
    APPEND = "append"


def main(
    config: command.Config,
    set_: command.Overrides = None,
    report: command.Report = None,
    mode: Annotated[
        Mode, typer.Option(help="All rows and a new encoder, or only new files with the old one.")
    ] = Mode.REBUILD,
) -> None:
    """Build the feature table from raw rows; bad rows go to the quarantine table with their reasons."""
    command.run("prepare", partial(prepare, mode=mode.value), config, set_, report)


if __name__ == "__main__":
    command.start(main)
