"""`mlspark check`: all of a pipeline that needs no data. Starts no Spark."""

from typing import Annotated

import typer

from mlspark.commands import options
from mlspark.features import check as features
from mlspark.settings import loading
from mlspark.stages import check as checks
from mlspark.stages import costs

app = options.app()


@app.command()
def check(
    config: Annotated[list[str], typer.Argument(metavar="CONFIG...", help="Settings; later files override earlier.")],
    set_: options.Overrides = None,
) -> None:
    """Check settings, contracts, features, splits and paths as the jobs would, without data and without Spark."""

    settings = loading.load(config, set_ or ())
    contract = checks.check_prepare(settings)
    costs.price(settings)
    if settings.scoring.source is not None:
        checks.check_score(settings)
    for warning in features.warnings(settings.features, contract):
        typer.echo(f"warning: {warning}", err=True)
    num_features = sum(len(entry.names) for entry in settings.features.inputs)
    typer.echo(
        f"{', '.join(config)}: nothing wrong that can be seen without the data: contract {contract.name} with "
        f"{len(contract.columns)} columns, {num_features} features, {settings.task.kind} task on {settings.task.target}"
    )
