"""`mlspark run`: the stages of a pipeline one after the other, in one process and one Spark session. Driver."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlspark.commands import options, queue_options
from mlspark.errors import ConfigError
from mlspark.queue import submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlspark.commands.job import Stage
    from mlspark.settings.pipeline import Settings

app = options.app()


@app.command()
def run(
    pipeline: queue_options.Pipeline,
    config: queue_options.Overlays = None,
    set_: options.Overrides = None,
    reports: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Write each stage's report there: prepare.json, train.json, ..."),
    ] = None,
) -> None:
    """Run the stages of a pipeline in one Spark session: what their jobs would do one after the other, in less time.

    Not `monitor`, a job of its own. A stage that fails ends it with that stage's exit status; run again, it goes on there.
    """
    from mlspark.commands import job  # takes seconds: Spark

    try:
        file, names = submission.parsed(pipeline)
        if "monitor" in names:
            raise ConfigError(f"{pipeline}: monitor looks at scores that stand; run jobs/monitor.py after the others")
    except ConfigError as error:
        job.print_error(f"run: {error}")
        raise typer.Exit(options.USER_ERROR) from None

    def chosen(settings: "Settings") -> "Sequence[Stage]":
        wanted = names or submission.default_stages(has_rows=settings.scoring.source is not None)
        if reports is not None:
            with contextlib.suppress(OSError):  # the check of the reports says so
                Path(reports).mkdir(parents=True, exist_ok=True)
        return [stage(name, reports, is_after_prepare="prepare" in wanted) for name in wanted]

    job.run_stages("run", chosen, [file, *(config or ())], set_ or ())


def stage(name: str, reports: str | None, *, is_after_prepare: bool) -> "Stage":
    """Return a stage, whose modules are imported by when its turn comes.

    Args:
        name: prepare, train, promote or score.
        reports: folder for the reports.
        is_after_prepare: whether the feature table that is trained on is prepared in the same session.
    """
    from mlspark.commands.job import Stage, later
    from mlspark.stages import check

    checks = {"prepare": check.check_prepare, "train": check.check_train, "score": check.check_score}
    return Stage(
        name,
        later(name),
        checks.get(name, lambda settings: None),
        report=None if reports is None else str(Path(reports, f"{name}.json")),
        shows_stages=name not in ("train", "promote"),
        follows=name == "train" and is_after_prepare,
    )
