"""A Spark session for commands that mostly need none. Driver."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlspark.settings.pipeline import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def for_command(name: str, settings: Settings) -> "Iterator[Callable[[], SparkSession]]":
    """Yield what starts Spark for command `name` when it is first called; it is stopped at the end."""
    started: list[SparkSession] = []

    def start() -> "SparkSession":
        if not started:
            from mlspark import session
            from mlspark.sources import catalog

            spark_settings = catalog.spark_settings(settings.all_sources.values())
            started.append(session.start(f"mlspark {name} {settings.name}", spark_settings))
        return started[0]

    try:
        yield start
    finally:
        if started:
            from mlspark import session

            session.stop(started[0])
