"""`mlspark cancel`: jobs end before their time, and none of their processes is left. Needs no Spark."""

import contextlib
from typing import Annotated

import typer

from mlspark.commands import options
from mlspark.commands.wait import until_ended
from mlspark.queue import places
from mlspark.queue.job import CANCELLED
from mlspark.queue.store import Store

app = options.app()


@app.command()
def cancel(
    job: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids, or how they begin.")],
) -> None:
    """End jobs, and wait until their processes are gone; one that has ended is left as it is.

    A stage that runs gets what Ctrl-C sends, may keep what it can for 30 s, and is then killed with all that it has started.
    """
    queue = places.existing()
    with contextlib.closing(Store(queue.database)) as store:
        chosen = [store.job(each) for each in job]
        for each in chosen:
            store.cancel(each.id)
        for each in chosen:
            ended = until_ended(queue, store, each.id)
            had_ended = "" if ended.state == CANCELLED and each.is_open else " already"
            typer.echo(f"{ended.id}: {'has' + had_ended + ' ended, ' if had_ended else ''}{ended.state}")
