"""The command lines: one file for each command of `mlspark`, and what the jobs' lines share."""

from mlspark.commands.quick_python import prefer_installed_spark

prefer_installed_spark()


def begin_spark(job: str) -> None:
    """Begin to start Spark beside a job's own imports, if it may be; see `session.begin`."""
    from mlspark import session

    session.begin(f"mlspark {job}")
