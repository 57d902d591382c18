"""`mlspark schedule`: jobs that are submitted when it is time. Needs no Spark."""

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlspark.commands import options, queue_options
from mlspark.errors import ConfigError
from mlspark.queue import cron, places, submission
from mlspark.queue.schedules import Asked, Schedule, Schedules
from mlspark.queue.store import Store
from mlspark.queue.targets import Place

app = options.app()
NAME = typer.Argument(metavar="NAME", help="Of the schedule: letters, digits, - and _.")


@app.command()
def add(
    name: Annotated[str, NAME],
    times: Annotated[
        str,
        typer.Argument(
            metavar="TIMES", help='Five fields as of cron, in UTC: "30 3 * * mon-fri"; or @hourly, @daily, @weekly.'
        ),
    ],
    pipeline: queue_options.Pipeline,
    target: queue_options.Target = "local",
    master: queue_options.Master = "",
    image: queue_options.Image = "",
    namespace: queue_options.Namespace = "",
    conf: queue_options.Confs = None,
    config: queue_options.Overlays = None,
    set_: options.Overrides = None,
    retries: queue_options.Retries = 2,
    retry_after: queue_options.RetryAfter = 10.0,
    time_limit: queue_options.TimeLimit = "",
    budget: queue_options.Budget = None,
) -> None:
    """Submit a job at each of these times, with the settings as they are then; none while the one before has not ended.

    A time that passed while the machine was down is made up for, the latest one alone.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"schedule {name}: a name has letters, digits, - and _ only")
    cron.parse(times)
    folder = Path.cwd()
    asked = Asked(
        pipeline=pipeline,
        target=target,
        place=Place(master, image, namespace, tuple(conf or ())),
        limits=queue_options.limits(retries, retry_after, time_limit),
        budget=budget,
        overlays=tuple(config or ()),
        overrides=tuple(set_ or ()),
        folder=str(folder),
        environment=submission.kept_environment(folder),
    )
    asked.submission()  # what is wrong now is said now
    queue = places.default()
    with contextlib.closing(Store(queue.database)) as store:
        Schedules(store).add(Schedule(name, times, asked), datetime.now(UTC).replace(tzinfo=None))
    queue.start_worker()


@app.command("list")
def list_() -> None:
    """List schedules, and what came of the latest time of each."""
    queue = places.existing()
    with contextlib.closing(Store(queue.database)) as store:
        schedules = Schedules(store)
        known = schedules.all()
        if known:
            queue.start_worker()
        for schedule in known:
            last = schedules.last_firing(schedule.name)
            came = "nothing yet" if last is None else f"{last.minute} UTC: {last.job_id or last.problem}"
            typer.echo(f"{schedule.name}: {schedule.times}, {schedule.asked.pipeline}, {schedule.asked.target}; {came}")
        if not known:
            typer.echo(f"no schedules in {queue.folder}; mlspark schedule add makes one")


@app.command()
def remove(name: Annotated[str, NAME]) -> None:
    """Forget a schedule; jobs that it has submitted stay."""
    queue = places.existing()
    with contextlib.closing(Store(queue.database)) as store:
        Schedules(store).remove(name)
