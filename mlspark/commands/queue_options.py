"""Options of the commands that put jobs into the queue, and a duration as people write it. Runs anywhere."""

import re
from typing import Annotated

import typer

from mlspark.errors import ConfigError
from mlspark.queue.job import Limits

Pipeline = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE[:STAGES]",
        help="YAML settings, and the stages if not all: conf/census.yaml:prepare,train. "
        "Stages: prepare,train,promote,score,monitor; by default all but monitor, score where scoring.source is set.",
    ),
]
Overlays = Annotated[
    list[str] | None, typer.Option("--config", metavar="FILE", help="YAML settings over those of PIPELINE.")
]
Target = Annotated[str, typer.Option(metavar="NAME", help="local, standalone, yarn, kubernetes or kubeflow.")]
Master = Annotated[
    str, typer.Option(metavar="URL", help="Of the cluster: spark://HOST:7077, k8s://https://HOST:6443; or local[4].")
]
Image = Annotated[
    str,
    typer.Option(metavar="NAME", help="kubernetes, kubeflow: container image of the executors or steps."),
]
Namespace = Annotated[str, typer.Option(metavar="NAME", help="kubernetes: namespace of the executors.")]
Confs = Annotated[
    list[str] | None, typer.Option("--conf", metavar="NAME=VALUE", help="Setting of Spark; may be repeated.")
]
Retries = Annotated[
    int, typer.Option(min=0, max=100, help="How often a stage is run again that failed in a way which may pass.")
]
RetryAfter = Annotated[
    float,
    typer.Option(min=0.0, metavar="SECONDS", help="Before the first of them; each later one waits twice as long."),
]
TimeLimit = Annotated[
    str, typer.Option(metavar="TIME", help="Most time that the stages may run, all together: 90s, 45m, 12h, 2d.")
]
Budget = Annotated[
    float | None, typer.Option(metavar="AMOUNT", help="Most that it may cost, at the price of cost.tier.")
]
JOB = typer.Argument(metavar="JOB", help="Its id, or how the id begins, if no other begins so.")

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def limits(retries: int, retry_after: float, time_limit: str) -> Limits:
    """Return the limits that these options mean. Raises ConfigError."""
    if not time_limit:
        return Limits(retries, retry_after)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", time_limit)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"--time-limit {time_limit}: expected a number and s, m, h or d, like 90s, 45m, 12h, 2d")
    return Limits(retries, retry_after, float(match[1]) * _UNITS[match[2]], f"time limit of {time_limit}")
