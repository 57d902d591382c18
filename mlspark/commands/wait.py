"""`mlspark wait`: until jobs have ended, with their exit status. Needs no Spark."""

import contextlib
import time
from typing import Annotated

import typer

from mlspark.commands import options
from mlspark.queue import places
from mlspark.queue.job import Job
from mlspark.queue.places import Places
from mlspark.queue.store import Store

app = options.app()

LOOK_SECONDS = 0.2


@app.command()
def wait(
    job: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids, or how they begin.")],
) -> None:
    """Wait for the end of jobs; the exit status is that of the first that did not succeed.

    That of its stage; 124 where a time limit or a budget was over, 130 where it was cancelled.
    """
    queue = places.existing()
    with contextlib.closing(Store(queue.database)) as store:
        chosen = [store.job(each).id for each in job]
        statuses = []
        for each in chosen:
            ended = until_ended(queue, store, each)
            statuses.append(ended.exit_status or 0)
            typer.echo(f"{ended.id}: {ended.state}" + (f", {ended.reason}" if ended.reason else ""))
    raise typer.Exit(next((status for status in statuses if status), 0))


def until_ended(queue: Places, store: Store, job_id: str) -> Job:
    """Return a job when it has ended; a worker that goes away meanwhile is replaced."""
    while (job := store.job(job_id)).is_open:
        queue.start_worker()
        time.sleep(LOOK_SECONDS)
    return job
