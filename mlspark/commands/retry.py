"""`mlspark retry`: a job that failed goes on with the stage that did. Needs no Spark."""

import contextlib
from dataclasses import replace
from typing import Annotated

import typer

from mlspark.commands import options, queue_options
from mlspark.queue import places
from mlspark.queue.store import Store

app = options.app()


@app.command()
def retry(
    job: Annotated[str, queue_options.JOB],
    time_limit: queue_options.TimeLimit = "",
) -> None:
    """Queue a job once more that failed or was cancelled: the stage that did not succeed and those after it.

    What it ran before counts towards its limit: --time-limit gives it another one.
    """
    queue = places.existing()
    with contextlib.closing(Store(queue.database)) as store:
        limits = store.job(job).submission.limits
        if time_limit:
            longer = queue_options.limits(limits.retries, limits.retry_after, time_limit)
            limits = replace(limits, seconds=longer.seconds, why=longer.why)
        queued = store.retry(job, limits=limits)
    queue.start_worker()
    typer.echo(queued.id)
