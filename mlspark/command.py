"""What the jobs' command lines share: options, logging, the report, exit status. Driver only."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from mlspark import config, session
from mlspark.config import Settings
from mlspark.errors import ConfigError, MlsparkError
from mlspark.sources import catalog

Config = Annotated[
    list[str],
    typer.Option("--config", metavar="FILE", help="YAML settings; given again, later files override earlier."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated.")
]
Report = Annotated[str | None, typer.Option("--report", metavar="FILE", help="Write a JSON report of what was done.")]

USER_ERROR = 2


def start(main: Callable[..., None]) -> None:
    """Parse the command line and call `main`; an error that is no MlsparkError keeps its plain traceback."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()


def _tell(message: str) -> None:
    """Print to standard error. spark-submit sends its Python child's to standard output, but not the JVM's own."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        launch_gateway().jvm.System.err.println(message)  # type: ignore[no-untyped-call]
    else:
        print(message, file=sys.stderr)


def run(
    name: str,
    work: Callable[[SparkSession, Settings], dict[str, Any]],
    files: list[str],
    overrides: list[str] | None,
    report: str | None,
) -> None:
    """Run one job from command-line arguments to exit status.

    Exits with 2 and one message on standard error, without a traceback, for everything that the user can mend.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)
    try:
        settings = config.load(files, overrides or ())
        if report and not Path(report).resolve().parent.is_dir():
            raise ConfigError(f"--report {report}: the folder does not exist")
        spark = session.start(f"mlspark {name} {settings.name}", catalog.spark_settings(settings))
        try:
            result = work(spark, settings)
        finally:
            spark.stop()
    except MlsparkError as error:
        _tell(f"{name}: {error}")
        raise typer.Exit(USER_ERROR) from None
    if report:
        Path(report).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
