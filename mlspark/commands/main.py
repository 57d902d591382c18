"""The `mlspark` command; the jobs have command lines of their own in jobs/.

One file for each command, imported when it is used: some import Spark, torch or MLflow, which takes seconds.
"""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from mlspark.commands import options, quick_python
from mlspark.errors import MlsparkError

COMMANDS = {
    "cancel": "End jobs of the queue, and all their processes.",
    "check": "Check a pipeline's settings, contracts and features, without data and without Spark.",
    "compare": "Compare versions on the same rows: differences with intervals and tests, slices, latency, size.",
    "contract": "Draft a contract from data; hold data against a contract.",
    "demo": "Run prepare, train, promote and score on census rows and sum up what came of it.",
    "estimate": "Say how long a job will take and what it will cost, from those that were done.",
    "evaluate": "Write how good a version is, where it errs and on which rows, as one page.",
    "explain": "Show what a version predicts of rows, and what each raw column adds.",
    "explain-features": "Show how one raw row becomes its numbers.",
    "fetch": "Download a public data set.",
    "importance": "Show what each raw column is worth to a version.",
    "jobs": "List the jobs of the queue.",
    "kubeflow": "Run the stages as a pipeline of Kubeflow, here or on its cluster; compile it.",
    "logs": "Print what the stages of a job have printed.",
    "models": "List networks for pictures by name, and what they cost here.",
    "monitor": "Compare scored rows, scores and late labels with what their version was trained on.",
    "new": "Make a project of your own from a CSV file.",
    "optimize": "Have a registered network run by the fastest engine that loses little enough.",
    "plan": "Say how many ranks a training wants, in hours and money.",
    "profile": "Show what a version's rows hold, or how they drifted from another version's.",
    "promote": "Put the newest version in the place of the one in use, if it is better; or go back.",
    "retry": "Queue a job once more that failed.",
    "run": "Run the stages of a pipeline one after the other, in one Spark session.",
    "schedule": "Submit jobs when it is time, as cron does, none while the one before runs.",
    "serve": "Answer rows over HTTP with the predictions of a version.",
    "stream-bench": "Stream a table as training would; print rows/s, waiting, memory.",
    "submit": "Queue the stages of a pipeline as a job that runs in the background.",
    "tune": "Search settings of the training by the validation rows.",
    "version": "Print the version.",
    "wait": "Wait for the end of jobs, with their exit status.",
}


class _Commands(TyperGroup):
    """The commands by name."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mlspark.commands.{cmd_name.replace('-', '_')}")
        return typer.main.get_command(module.app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = options.app()


@app.callback(cls=_Commands)
def _mlspark() -> None:
    """From tables in a data lake to trained, versioned PyTorch models and scored rows."""


def main() -> None:
    """Run the command line; exit with 2 and one message, without a traceback, for what the user can correct."""
    quick_python.collect_seldom()
    try:
        app()
    except MlsparkError as error:
        typer.echo(f"mlspark: {error}", err=True)
        sys.exit(options.USER_ERROR)
