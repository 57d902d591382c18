"""`mlspark logs`: what the stages of a job have printed. Needs no Spark."""

import contextlib
import sys
import time
from typing import Annotated

import typer

from mlspark.commands import options, queue_options
from mlspark.commands.wait import LOOK_SECONDS
from mlspark.errors import ConfigError
from mlspark.queue import places
from mlspark.queue.job import Attempt, Job
from mlspark.queue.places import LOG_FILE, Places
from mlspark.queue.store import Store

app = options.app()

_BLOCK = 2**16


@app.command()
def logs(
    job: Annotated[str, queue_options.JOB],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Print what comes until the job has ended.")] = False,
    stage: Annotated[str, typer.Option(metavar="NAME", help="Of this stage alone.")] = "",
) -> None:
    """Print what the stages of a job have printed, attempt by attempt, each under a line that names it."""
    queue = places.existing()
    with contextlib.closing(Store(queue.database)) as store:
        found = store.job(job)
        names = [each.name for each in found.submission.stages]
        if stage and stage not in names:
            raise ConfigError(f"{found.id}: has no stage {stage}; it has {', '.join(names)}")
        printed: dict[int, int] = {}
        while True:
            found = store.job(found.id)  # before its logs, so that nothing is missed of one that has ended
            for attempt in store.attempts(found):
                if not stage or names[attempt.stage] == stage:
                    _print(queue, found, attempt, printed)
            if not follow or not found.is_open:
                return
            queue.start_worker()
            time.sleep(LOOK_SECONDS)


def _print(queue: Places, job: Job, attempt: Attempt, printed: dict[int, int]) -> None:
    """Print what an attempt has printed since the last look; `printed` has the bytes up to there."""
    if attempt.number not in printed:
        printed[attempt.number] = 0
        name = job.submission.stages[attempt.stage].name
        typer.echo(f"==> {name}, attempt {attempt.number} of {job.id}, {attempt.started}")
    log = queue.attempt(job, attempt) / LOG_FILE
    with contextlib.suppress(FileNotFoundError), open(log, "rb") as stream:
        stream.seek(printed[attempt.number])
        while block := stream.read(_BLOCK):
            sys.stdout.buffer.write(block)
            printed[attempt.number] += len(block)
    sys.stdout.flush()
