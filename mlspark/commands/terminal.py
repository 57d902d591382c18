"""Where tables for people are printed: as wide as the terminal, and whole where the output is none. Runs anywhere."""

from rich.console import Console

_WHOLE = 100_000


def console() -> Console:
    """Return standard output: tables fit a terminal, and in a pipe or file no name is cut and no line broken."""
    output = Console()
    return output if output.is_terminal else Console(width=_WHOLE)
