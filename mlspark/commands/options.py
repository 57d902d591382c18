"""Options that several commands have, declared once, and the exit status. Runs anywhere."""

from typing import Annotated

import typer

USER_ERROR = 2
"""Exit status of a failure that the user can correct; it is reported in one message."""

ALARM = 3
"""Exit status of `mlspark monitor` where a limit is passed: nothing went wrong, but somebody has to look."""

Config = Annotated[
    list[str],
    typer.Option("--config", metavar="FILE", help="YAML settings; given again, later files override earlier."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated.")
]
Report = Annotated[str | None, typer.Option("--report", metavar="FILE", help="Write a JSON report of what was done.")]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write it as JSON, too.")]
Version = Annotated[int | None, typer.Option(help="Of the feature table; else the newest.")]


def app() -> typer.Typer:
    """Return an empty command line in the project's style: an error that is no MlsparkError keeps its plain traceback."""
    return typer.Typer(
        no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
