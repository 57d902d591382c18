"""How Java is started for a job: by how much there is to read. Runs anywhere, at once: needs neither Spark nor pydantic.

    python -m mlspark.commands.java_options jobs/prepare.py --config FILE [--set KEY=VALUE] ...

prints the options; conf/spark-env.sh asks so before spark-submit starts Java.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlspark.errors import MlsparkError
from mlspark.queue import inputs
from mlspark.queue.targets import STAGES
from mlspark.settings import merging

FEW_BYTES = 64 * 2**20
"""Bytes of input up to which a stage is a small job."""
# Java's second compiler makes loops over millions of rows faster, and takes more time than all else of a job that has none:
# preparing 4,000 rows of 41 columns takes 36 processor seconds with it and 21 without, 100,000 rows 69 and 45.
SMALL = "-XX:TieredStopAtLevel=1"
"""Options of Java for a small job. A `spark.driver.extraJavaOptions` of the user's counts over them."""


def of_stages(settings: Mapping[str, Any], stages: Sequence[str], folder: Path | None = None) -> str:
    """Return the options for stages of a pipeline in one session; see `are_small`."""
    return SMALL if are_small(settings, stages, folder) else ""


def are_small(settings: Mapping[str, Any], stages: Sequence[str], folder: Path | None = None) -> bool:
    """Return whether stages of a pipeline are a small job.

    Args:
        settings: of the pipeline, as its files have them.
        stages: names.
        folder: what relative paths are taken from; the working folder unless given.
    """
    num_bytes = inputs.num_bytes(settings, stages, folder or Path.cwd())
    return num_bytes is not None and num_bytes <= FEW_BYTES


def of_command(arguments: Sequence[str]) -> str:
    """Return the options for a command line of a job: `... jobs/prepare.py --config FILE ...`; none for any other."""
    stages = [Path(argument).stem for argument in arguments if argument.endswith(".py")][:1]
    if not stages or stages[0] not in STAGES:
        return ""
    try:
        settings, _ = merging.merged(_values(arguments, "--config"), _values(arguments, "--set"))
    except MlsparkError:  # the job will say so
        return ""
    return of_stages(settings, stages)


def _values(arguments: Sequence[str], option: str) -> list[str]:
    """Return the values of an option that may be repeated: `--set VALUE` or `--set=VALUE`."""
    values = [argument.removeprefix(f"{option}=") for argument in arguments if argument.startswith(f"{option}=")]
    named = [place for place, argument in enumerate(arguments[:-1]) if argument == option]
    return values + [arguments[place + 1] for place in named]


if __name__ == "__main__":
    sys.stdout.write(of_command(sys.argv[1:]) + "\n")
