"""`mlspark serve`: a registered version behind HTTP. Needs no Spark."""

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from mlspark.commands import options
from mlspark.errors import ConfigError

if TYPE_CHECKING:
    from mlspark.scoring.rest.app import Service
    from mlspark.scoring.rest.current import Current
    from mlspark.scoring.rest.limits import Limits
    from mlspark.scoring.rest.metrics import Metrics

app = options.app()


@app.command()
def serve(
    version: Annotated[
        str, typer.Argument(metavar="NAME[@ALIAS|/VERSION]", help="Registered model; by itself, NAME@champion.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than this machine's own needs MLSPARK_SERVE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    store: Annotated[
        str, typer.Option(metavar="URI", help="MLflow store; else $MLFLOW_TRACKING_URI, else that of $MLSPARK_HOME.")
    ] = "",
    max_body_mb: Annotated[float, typer.Option(min=0.001, help="Most megabytes of a body.")] = 16.0,
    max_rows: Annotated[int, typer.Option(min=1, help="Most rows of a request.")] = 10_000,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Most seconds of a request.")] = 30.0,
    poll: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks at the alias.")] = 5.0,
    log: Annotated[
        str, typer.Option(metavar="TABLE", help="Delta table that gets every row answered, for monitoring.")
    ] = "",
    log_seconds: Annotated[
        float, typer.Option(min=0.1, help="Rows are written to it at the latest after so long.")
    ] = 10.0,
    shadow: Annotated[
        str,
        typer.Option(metavar="ALIAS|VERSION", help="Version that is asked the same; its answers go to --log alone."),
    ] = "",
    allow_decoder: Annotated[
        bool, typer.Option("--allow-decoder", help="Score pictures decoded otherwise than in training.")
    ] = False,
) -> None:
    """Answer rows with the predictions of a registered version, until SIGTERM or Ctrl-C."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        from mlspark.scoring.rest import server
    except ImportError as error:
        raise ConfigError(f'{error}: install what serving needs: pip install "mlspark[serve,rest]"') from None
    token = server.token_for(host)
    listening = server.bound(host, port)

    from mlspark.registry import versions  # takes seconds: MLflow
    from mlspark.scoring.rest.current import Current
    from mlspark.scoring.rest.limits import Limits
    from mlspark.scoring.rest.metrics import Metrics
    from mlspark.tracking import runs

    name, wanted = (version, "champion") if not {"@", "/"} & {*version} else versions.named(version, "NAME")
    if shadow and not log:
        raise ConfigError(f"--shadow {shadow}: its answers are returned to nobody, so they need --log TABLE")
    client = runs.connect_to_read(store, os.environ.get("MLSPARK_HOME") or ".mlspark")
    limits, metrics = Limits(body_bytes=int(max_body_mb * 2**20), rows=max_rows, seconds=timeout), Metrics()
    observe = metrics.load_failures.inc
    follow = partial(Current, client, name, poll_seconds=poll, allow_decoder=allow_decoder, observe_failure=observe)
    current = follow(wanted)
    second = follow(int(shadow) if shadow.isdigit() else shadow) if shadow else None
    service = _service(current, second, limits, metrics, log, log_seconds)
    if rules := current.served.package.unserved_rules:
        typer.echo(f"rules {', '.join(rules)} are checked by Spark alone (batch_only): rows that break them are scored")
    typer.echo(f"{name} version {current.served.number} answers at {server.address(listening)}")
    sys.stdout.flush()
    server.run(service, listening, limits=limits, metrics=metrics, token=token)
    typer.echo("every request was answered; ended")


def _service(
    current: "Current", second: "Current | None", limits: "Limits", metrics: "Metrics", log: str, log_seconds: float
) -> "Service":
    """Return what answers, with its prediction log and the second version that is asked the same."""
    from mlspark.scoring.rest.app import Service
    from mlspark.scoring.rest.prediction_log import PredictionLog
    from mlspark.scoring.rest.shadow import Shadow

    if not log:
        return Service(current, limits, metrics)
    kept = PredictionLog(
        log, flush_seconds=log_seconds, observe=metrics.log_rows.inc, observe_lost=metrics.log_lost.inc
    )
    shadow = None if second is None else Shadow(second, kept, metrics)
    return Service(current, limits, metrics, log=kept, shadow=shadow)
