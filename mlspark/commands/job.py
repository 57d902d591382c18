"""What the jobs' command lines share: options, logging, the report, exit status. Driver only."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import typer
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from mlspark import session
from mlspark.commands import interruption, options, output_file, stage_progress
from mlspark.errors import MlsparkError
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.stages import costs, job_records

logger = logging.getLogger(__name__)


def start(main: Callable[..., None]) -> None:
    """Parse the command line and call `main`; an error that is no MlsparkError keeps its plain traceback."""
    app = options.app()
    app.command()(main)
    try:
        app()
    except MlsparkError as error:  # of a job that does not `run` Spark
        print_error(f"{main.__name__}: {error}")
        sys.exit(options.USER_ERROR)


def print_error(message: str) -> None:
    """Print to standard error. spark-submit sends its Python child's to standard output, but not the JVM's own."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        launch_gateway().jvm.System.err.println(message)  # type: ignore[no-untyped-call]
    else:
        print(message, file=sys.stderr)


def run(
    name: str,
    work: Callable[[SparkSession, Settings], dict[str, Any]],
    check: Callable[[Settings], object],
    files: list[str],
    overrides: list[str] | None,
    report: str | None,
    *,
    shows_stages: bool = True,
) -> None:
    """Run one job from command-line arguments to exit status; `check` refuses what it can before Spark starts.

    The report gets `cost`, that of the whole job, where `cost.tier` says on which machines it runs.
    It says how far Spark's stages are where `shows_stages`: unless the work tells its progress itself.

    Exits with 2 and one message on standard error, without a traceback, for everything that the user can correct; with 130
    or 143 and one message after Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    logging.basicConfig(handlers=[stage_progress.Handler()])
    logging.getLogger("mlspark").setLevel(logging.INFO)
    try:
        settings = loading.load(files, overrides or ())
        output_file.check("--report", report)
        check(settings)
        price = costs.price(settings)
        spark = session.start(f"mlspark {name} {settings.name}", catalog.spark_settings(settings.all_sources.values()))
        try:
            with interruption.raised(spark), stage_progress.shown(spark, name) if shows_stages else nullcontext():
                result = work(spark, settings)
        finally:
            spark.stop()
        seconds = time.monotonic() - started
        result = job_records.ended(settings, name, result, seconds)
        if price is not None:
            logger.info("cost: %s", price.words(seconds))
        if report:
            stands = "what the job did stands, run it again for the report"
            output_file.write("--report", report, json.dumps(result, indent=1) + "\n", what_stands=stands)
    except MlsparkError as error:
        print_error(f"{name}: {error}")
        raise typer.Exit(options.USER_ERROR) from None
    except KeyboardInterrupt as error:
        print_error(f"{name}: {interruption.line(error)}")
        raise typer.Exit(interruption.status(error)) from None
