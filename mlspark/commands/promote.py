"""`mlspark promote`: a new version takes the place of the one in use, or is kept out; and back. Slices alone need Spark."""

import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from mlspark.commands import options, output_file, spark_when_asked
from mlspark.errors import ConfigError
from mlspark.settings import loading

app = options.app()


@app.command()
def promote(
    config: options.Config,
    version: Annotated[
        str, typer.Argument(metavar="[VERSION|@ALIAS]", help="Of the pipeline's model; else that of registry.alias.")
    ] = "",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Give the alias back to the version that had it before.")
    ] = False,
    to: Annotated[int | None, typer.Option(min=1, metavar="VERSION", help="With --rollback: to this version.")] = None,
    because: Annotated[str, typer.Option(metavar="TEXT", help="With --rollback: why, for the audit.")] = "",
    set_: options.Overrides = None,
    report: options.Report = None,
) -> None:
    """Compare the newest version with the one in use and give it the alias if it passes the gate of `promotion`.

    Status 0 whatever is decided; the report says what, and why.
    """
    run(config, overrides=set_ or (), version=version, is_rollback=rollback, to=to, because=because, report=report)


def run(
    files: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    version: str = "",
    is_rollback: bool = False,
    to: int | None = None,
    because: str = "",
    report: str | None = None,
) -> None:
    """Decide on a version, or roll back, and say so.

    Args:
        files: settings of the pipeline.
        overrides: of settings.
        version: number or @alias; empty: that of registry.alias.
        is_rollback: whether to give the alias back instead.
        to: version to go back to; None: the one before.
        because: why it is rolled back.
        report: file for the decision as JSON.

    Raises:
        ConfigError: an option or a setting is wrong, or another process decides at this moment.
        RegistryError: there is no such version, or its files are gone.
        TrackingError: MLflow does not answer.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("mlspark").setLevel(logging.INFO)
    if version and is_rollback:
        raise ConfigError(f"promote: {version} with --rollback; name the version to go back to: --to NUMBER")
    if (to is not None or because) and not is_rollback:
        raise ConfigError("promote: --to and --because belong to --rollback")
    wanted = _version(version)
    output_file.check("--report", report)
    settings = loading.load(list(files), list(overrides))
    from mlspark.stages import costs, job_records  # takes seconds: torch, MLflow
    from mlspark.stages import promote as stage

    price, started = costs.price(settings), time.monotonic()
    with spark_when_asked.for_command("promote", settings) as spark:
        if is_rollback:
            done = stage.roll_back(settings, to=to, because=because)
        else:
            done = stage.promote(settings, wanted, spark=spark)
    done = job_records.ended(settings, "promote", done, time.monotonic() - started, price=price)
    if report:
        text = json.dumps(done, indent=1, ensure_ascii=False) + "\n"
        output_file.write("--report", report, text, what_stands="what was decided stands, run again for the report")


def _version(text: str) -> int | str | None:
    """Return number or alias of a version, None where none is named."""
    match = re.fullmatch(r"([1-9]\d*)|@([\w-]+)|", text)
    if match is None:
        raise ConfigError(f"promote: {text} names no version; give its number, or @ and an alias")
    number, alias = match.groups()
    return int(number) if number else alias
