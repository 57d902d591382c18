"""Raw rows -> feature table: SPARK_CONF_DIR=conf spark-submit jobs/prepare.py --config conf/census.yaml"""

from mlspark.commands import begin_spark

begin_spark("prepare")  # beside the imports that follow

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from mlspark.commands import job, options
from mlspark.stages.check import check_prepare
from mlspark.stages.prepare import prepare


class Mode(StrEnum):
    REBUILD = "rebuild"
    APPEND = "append"


def main(
    config: options.Config,
    set_: options.Overrides = None,
    report: options.Report = None,
    mode: Annotated[
        Mode, typer.Option(help="All rows and a new encoder, or only new files with the old one.")
    ] = Mode.REBUILD,
) -> None:
    """Build the feature table from raw rows; bad rows go to the quarantine table with their reasons."""
    job.run("prepare", partial(prepare, mode=mode.value), check_prepare, config, set_, report)


if __name__ == "__main__":
    job.start(main)
