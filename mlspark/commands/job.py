"""What the jobs' command lines share: options, logging, the report, exit status. Driver only."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from threading import Thread
from typing import Any

import typer
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from mlspark import python_workers, session
from mlspark.commands import interruption, java_options, options, output_file, quick_python, stage_progress
from mlspark.cost import Price
from mlspark.errors import MlsparkError
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.stages import costs, job_records
from mlspark.training import rank

logger = logging.getLogger(__name__)


def start(main: Callable[..., None]) -> None:
    """Parse the command line and call `main`; an error that is no MlsparkError keeps its plain traceback."""
    quick_python.collect_seldom()
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


@dataclass(frozen=True)
class Later:
    """Work of a stage whose module takes seconds to import: before Spark starts, or under spark-submit meanwhile."""

    module: str
    function: str
    of_workers: Sequence[str] = ()
    """Modules that take seconds to import in the Python workers that it needs."""
    of_copies: Callable[[Settings], Sequence[str]] = lambda settings: ()
    """Returns the same of processes that are copies of such workers, where those are copies themselves."""

    def __call__(self, spark: SparkSession, settings: Settings) -> dict[str, Any]:
        """Do the work."""
        work: Callable[[SparkSession, Settings], dict[str, Any]] = getattr(import_module(self.module), self.function)
        interruption.rearm()
        return work(spark, settings)

    def begin(self, settings: Settings) -> None:
        """Import the module and what it opens MLflow with, under spark-submit beside this thread, which waits for Java.

        Elsewhere Python forks to start Java, which a second thread makes unsafe.
        """
        if "PYSPARK_GATEWAY_PORT" in os.environ:
            _import_beside([self.module], settings)
        else:
            _import(self.module, settings)


def later(stage: str) -> Later:
    """Return the work of a stage: prepare, train, promote or score."""
    module = f"mlspark.stages.{stage}"
    if stage == "train":
        return Later(module, "train", of_copies=_of_ranks)
    if stage == "score":
        return Later(module, "score", of_workers=("pandas", "torch", "mlspark.scoring.partitions"))
    return Later(module, "promote_in_session" if stage == "promote" else stage)


def _of_ranks(settings: Settings) -> Sequence[str]:
    """Return what the ranks of a training import where they are copies of a Python worker: trees have none."""
    return rank.IMPORTS if settings.model.learner == "network" and settings.training.allows_copies else ()


@dataclass(frozen=True)
class Stage:
    """One of the stages that a session runs."""

    name: str
    work: Callable[[SparkSession, Settings], dict[str, Any]]
    check: Callable[[Settings], object]
    """Refuses what it can before the work; of all stages before Spark starts."""
    report: str | None = None
    """File for the report."""
    shows_stages: bool = True
    """Whether it is said how far Spark's stages are: unless the work tells its progress itself."""
    follows: bool = False
    """Whether the check needs what an earlier stage of the session writes: it is made when the stage's turn comes."""


def _begin_workers(spark: SparkSession, stages: Sequence[Stage], settings: Settings) -> None:
    """Have what Python workers of any stage need imported beside this thread, where workers are on this machine."""
    works = [stage.work for stage in stages if isinstance(stage.work, Later)]
    modules = [module for work in works for module in work.of_workers]
    of_copies = [module for work in works for module in work.of_copies(settings)]
    if not (modules or of_copies) or not python_workers.are_here(spark):
        return
    are_copies = python_workers.import_once(spark, [*modules, *of_copies])
    if are_copies or modules:
        missing = [] if are_copies else modules
        python_workers.make_ready(spark, partial(python_workers.importing, missing))


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
    """Run one job from command-line arguments to exit status: see `run_stages` and `Stage`."""
    stage = Stage(name, work, check, report, shows_stages)
    run_stages(name, lambda settings: [stage], files, overrides or ())


def run_stages(
    command: str, chosen: Callable[[Settings], Sequence[Stage]], files: Sequence[str], overrides: Sequence[str]
) -> None:
    """Run stages in one session, from command-line arguments to exit status.

    The report of each gets `cost`, the first that of starting Spark too, where `cost.tier` says on which machines.

    Exits with 2 and one message on standard error, without a traceback, for everything that the user can correct; with 130
    or 143 and one message after Ctrl-C or SIGTERM.

    Args:
        command: what messages begin with while no stage is at work.
        chosen: returns the stages, in order, of the settings.
        files: settings.
        overrides: "section.key=value".
    """
    at, begun = command, time.monotonic()
    logging.basicConfig(handlers=[stage_progress.Handler()])
    logging.getLogger("mlspark").setLevel(logging.INFO)
    try:
        settings = loading.load(list(files), list(overrides))
        stages = chosen(settings)
        for stage in stages:
            at = stage.name
            output_file.check("--report", stage.report)
            if not stage.follows:
                stage.check(settings)
        at, price = command, costs.price(settings)
        is_small = java_options.are_small(settings.model_dump(mode="json"), [stage.name for stage in stages])
        if isinstance(stages[0].work, Later):
            stages[0].work.begin(settings)
        spark = session.start(
            f"mlspark {command} {settings.name}",
            catalog.spark_settings(settings.all_sources.values()),
            java_options=java_options.small() if is_small else "",
        )
        if is_small:
            session.plan_ahead(spark)
        to_start = time.monotonic() - begun
        _import_beside([stage.work.module for stage in stages[1:] if isinstance(stage.work, Later)], settings)
        try:
            with interruption.raised(spark):
                _begin_workers(spark, stages, settings)
                for stage in stages:
                    at = stage.name
                    _run(spark, settings, stage, price, begun=begun, to_start=to_start, is_one_of_many=len(stages) > 1)
                    begun = time.monotonic()
        except (MlsparkError, KeyboardInterrupt) as error:
            raise _told(at, error) from None  # now: what follows takes seconds
        finally:
            python_workers.wait_ready()  # Spark writes an error of a worker that is at work when it stops
            session.stop(spark)
    except (MlsparkError, KeyboardInterrupt) as error:
        raise _told(at, error) from None


def _told(at: str, error: MlsparkError | KeyboardInterrupt) -> typer.Exit:
    """Print what ended a session, and return what ends the process."""
    if isinstance(error, MlsparkError):
        print_error(f"{at}: {error}")
        return typer.Exit(options.USER_ERROR)
    print_error(f"{at}: {interruption.line(error)}")
    return typer.Exit(interruption.status(error))


def _import(module: str, settings: Settings) -> None:
    """Import a module that `Later` calls: the call imports it again, and fails where the user is told of it."""
    with suppress(Exception):
        import_module(module)
        # Where the stage needs MLflow, which imports more as it opens.
        if stores := sys.modules.get("mlspark.tracking.stores"):
            stores.import_ahead(settings.tracking.uri)


def _import_beside(modules: Sequence[str], settings: Settings) -> None:
    """Import what stages need beside this thread, which waits for Java most of the time."""

    def load() -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(interval / 100)  # else this thread waits 5 ms for its turn at each answer of Java
        try:
            for module in modules:
                _import(module, settings)
        finally:
            sys.setswitchinterval(interval)

    if modules:
        Thread(target=load, name="import of stages").start()


def _run(
    spark: SparkSession,
    settings: Settings,
    stage: Stage,
    price: Price | None,
    *,
    begun: float,
    to_start: float,
    is_one_of_many: bool,
) -> None:
    """Do the work of a stage, keep its record and write its report.

    Args:
        spark: the session.
        settings: the pipeline.
        stage: the stage.
        price: what a second costs.
        begun: when the stage was, or the session whose first it is.
        to_start: seconds that the session took to start; estimates are of jobs that start one.
        is_one_of_many: whether its name is said.
    """
    entered = time.monotonic()
    if is_one_of_many:
        logger.info("%s", stage.name)
    if stage.follows:
        stage.check(settings)
    with stage_progress.shown(spark, stage.name) if stage.shows_stages else nullcontext():
        result = stage.work(spark, settings)
    seconds = time.monotonic() - begun
    alone_seconds = to_start + time.monotonic() - entered
    result = job_records.ended(settings, stage.name, result, seconds, price=price, alone_seconds=alone_seconds)
    if price is not None:
        logger.info("cost: %s", price.words(seconds))
    if stage.report:
        stands = "what the job did stands, run it again for the report"
        output_file.write("--report", stage.report, json.dumps(result, indent=1) + "\n", what_stands=stands)
