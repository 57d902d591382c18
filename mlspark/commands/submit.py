"""`mlspark submit`: the stages of a pipeline as a job that runs in the background. Needs no Spark and returns at once."""

import contextlib
import shlex

import typer

from mlspark.commands import options, queue_options
from mlspark.queue import places, submission
from mlspark.queue.store import Store
from mlspark.queue.targets import Place

app = options.app()


@app.command()
def submit(
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
    again: bool = typer.Option(False, "--again", help="Run it although the same has succeeded."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the stages' command lines, and queue nothing."),
) -> None:
    """Queue the stages of a pipeline, and print the id of the job.

    The same settings, stages, target and input files are the same job: submitted again it is not run again, unless it has
    failed or was cancelled.
    """
    asked = submission.make(
        pipeline,
        target,
        Place(master, image, namespace, tuple(conf or ())),
        limits=queue_options.limits(retries, retry_after, time_limit),
        budget=budget,
        overlays=config or (),
        overrides=set_ or (),
    )
    if dry_run:
        for stage in asked.stages:
            typer.echo(f"{shlex.join(stage.command)} --config SETTINGS --report REPORT")
        return
    queue = places.default()
    with contextlib.closing(Store(queue.database)) as store:
        job, is_new = store.submit(asked, is_again=again)
    if job.is_open:
        queue.start_worker()
    if not is_new:
        typer.echo(f"{job.id}: the same job, {job.state}; nothing was queued", err=True)
    typer.echo(job.id)
