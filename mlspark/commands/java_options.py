"""How Java is started for a job: by how much there is to read. Runs anywhere, at once: needs neither Spark nor pydantic.

    python -m mlspark.commands.java_options jobs/prepare.py --config FILE [--set KEY=VALUE] ...

prints the options; conf/spark-env.sh asks so before spark-submit starts Java.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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
# The default collector works beside the job, on cores that it needs, and makes each write of a reference dearer; with less
# memory at the start it comes earlier. Preparing 20,000 rows: 15.4 processor seconds with it, 14.0 so, and 0.2 GB more at
# the peak; scoring 250,000 rows of 30 columns 37.2 and 34.8.
COLLECTOR = "-XX:+UseSerialGC -XX:InitialRAMPercentage=10"
"""More of them, where nobody has chosen a collector: Java does not start with two."""
_CHOICE = re.compile(r"-XX:[+-]Use\w*GC\b")
_JAVA_READS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "SPARK_SUBMIT_OPTS", "PYSPARK_SUBMIT_ARGS")


def small(arguments: Sequence[str] = ()) -> str:
    """Return the options for a small job, by what environment, Spark's settings and a command line say of Java already."""
    said = (*arguments, *(os.environ.get(name, "") for name in _JAVA_READS), *_defaults(arguments))
    return SMALL if any(map(_CHOICE.search, said)) else f"{SMALL} {COLLECTOR}"


def _defaults(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the texts of the files that Spark may read settings from."""
    files = [Path(file) for file in _values(arguments, "--properties-file")]
    files += [_settings_folder() / name for name in ("spark-defaults.conf", "spark-env.sh")]
    for file in files:
        with suppress(OSError):  # it is not there, or for others: Spark will say so where it matters
            yield file.read_text(encoding="utf-8", errors="replace")


def _settings_folder() -> Path:
    """Return the folder of Spark's settings, which Spark's shell has a name for."""
    if "SPARK_CONF_DIR" in os.environ:
        return Path(os.environ["SPARK_CONF_DIR"])
    from pyspark.find_spark_home import _find_spark_home  # in a process that is about to start Spark

    return Path(_find_spark_home(), "conf")


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
    return small(arguments) if are_small(settings, stages) else ""


def _values(arguments: Sequence[str], option: str) -> list[str]:
    """Return the values of an option that may be repeated: `--set VALUE` or `--set=VALUE`."""
    values = [argument.removeprefix(f"{option}=") for argument in arguments if argument.startswith(f"{option}=")]
    named = [place for place, argument in enumerate(arguments[:-1]) if argument == option]
    return values + [arguments[place + 1] for place in named]


if __name__ == "__main__":
    sys.stdout.write(of_command(sys.argv[1:]) + "\n")
