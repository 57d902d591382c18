"""Notebooks: executed, and written as pages of the documentation. python -m tools.notebooks [NAME...] (`make notebooks`)."""

import base64
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import jupytext
import typer
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from mlspark.errors import MlsparkError
from tools.cluster import background, settings

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {file.stem: file for file in sorted((ROOT / "notebooks").glob("*.py"))}
PAGES = ROOT / "docs" / "notebooks"
ON_SERVERS = ("receiving",)
"""Notebooks that read from `_SERVERS`."""
HIDDEN = "not-in-docs"
"""Tag of cells whose output stays out of the pages, as it holds data that is not to be passed on."""
_SERVERS = ("hdfs", "s3", "metastore", "postgres")
_CELL_SECONDS = 900
_USER_ERROR = 2

Notebook = Any
"""An nbformat.NotebookNode."""


class NotebookError(MlsparkError):
    """A cell of a notebook failed."""


def execute(source: Path, folder: Path, environment: Mapping[str, str]) -> Notebook:
    """Return a notebook with outputs, executed in a kernel of its own.

    Args:
        source: a .py file of jupytext.
        folder: working directory of the kernel.
        environment: of the kernel, beside this process's.

    Raises:
        NotebookError: a cell fails, takes too long or ends the kernel; says which, by its number among all cells and its
            first line, and has the traceback.
    """
    notebook = jupytext.read(source)
    number = 0

    def count(cell: Any, cell_index: int) -> None:
        nonlocal number
        number = cell_index

    # In a folder of our own: the name of a socket has 100 letters at most, and TCP would be open to all users here.
    with tempfile.TemporaryDirectory(prefix="mlspark-kernel-") as sockets:
        client = NotebookClient(
            notebook,
            timeout=_CELL_SECONDS,
            kernel_name="python3",
            coalesce_streams=True,  # what is printed by one cell is one output
            resources={"metadata": {"path": str(folder)}},
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            on_cell_start=count,
        )
        try:
            client.execute(env={**os.environ, **environment})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            first_line = notebook.cells[number].source.partition("\n")[0]
            said = error.traceback if isinstance(error, CellExecutionError) else str(error)
            plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
            raise NotebookError(f"{source.name}, cell {number + 1} ({first_line}):\n{plain}") from None
    return notebook


@contextmanager
def environment_of(name: str) -> Iterator[dict[str, str]]:
    """Yield what a notebook's kernel needs in its environment; servers that it reads from run meanwhile.

    Raises:
        ClusterError: a server cannot be started.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PYTHONPATH": path, "SPARK_LOCAL_IP": "127.0.0.1"}
    if name not in ON_SERVERS:
        yield environment
        return
    with background.serve(_SERVERS) as running, tempfile.TemporaryDirectory(prefix="mlspark-conf-") as conf:
        spark = settings.spark_settings(hdfs=running.hdfs, s3=running.s3, metastore=running.metastore)
        settings.write_conf(Path(conf), spark)
        shutil.copy(ROOT / "conf" / "log4j2.properties", conf)
        yield {
            **environment,
            "SPARK_CONF_DIR": conf,
            **settings.environment(
                hdfs=running.hdfs, s3=running.s3, metastore=running.metastore, postgres=running.postgres
            ),
        }


def page(name: str, notebook: Notebook) -> tuple[str, dict[str, bytes]]:
    """Return an executed notebook as Markdown, and its pictures by file name."""
    parts = [f"<!-- Written by `make notebooks` from notebooks/{name}.py. -->"]
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(code(cell.source))
        if HIDDEN in cell.metadata.get("tags", ()):
            parts.append("*Not shown here, as it holds pictures of a data set that is not part of mlspark: run it.*")
            continue
        for output in _outputs(cell):
            if isinstance(output, bytes):
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = output
                parts.append(f"![what the cell above draws]({file})")
            else:
                parts.append(output)
    parts.append(f"---\n\nThis page is `notebooks/{name}.py`, as it was executed: see [notebooks](index.md).")
    return "\n\n".join(parts) + "\n", pictures


def code(source: str) -> str:
    """Return a cell of code as it stands in a page."""
    return f"```python\n{source}\n```"


def _outputs(cell: Any) -> Iterator[str | bytes]:
    """Yield a cell's outputs as Markdown, pictures as PNG. Standard error is left out."""
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream" and output.name == "stdout":
            yield _text(output.text)
        elif "image/png" in data:
            yield base64.b64decode(data["image/png"])
        elif "text/html" in data:
            yield _table(data["text/html"])
        elif "text/plain" in data:
            yield _text(data["text/plain"])


def _text(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def _table(html: str) -> str:
    """Return a data frame's HTML without styles, classes and ids, a row a line; site.css has a style."""
    html = re.sub(r"<style.*?</style>|</?div.*?>", "", html, flags=re.S)
    html = re.sub(r' (?:id|border|class|style)="[^"]*"', "", html)
    table = re.sub(r"\s*\n\s*", "", html).replace("<tr", "\n<tr").strip()
    return f'<div class="frame">{table}</div>'


def write(name: str) -> None:
    """Execute a notebook and write its page and pictures in place of those of before."""
    started = time.monotonic()
    with environment_of(name) as environment, tempfile.TemporaryDirectory(prefix="mlspark-notebook-") as folder:
        text, pictures = page(name, execute(NOTEBOOKS[name], Path(folder), environment))
    for old in PAGES.glob(f"{name}-*.png"):
        old.unlink()
    (PAGES / f"{name}.md").write_text(text)
    for file, content in pictures.items():
        (PAGES / file).write_bytes(content)
    typer.echo(f"docs/notebooks/{name}.md: {time.monotonic() - started:.0f} s")


def main(names: Annotated[list[str] | None, typer.Argument(help="Of notebooks; none: all.")] = None) -> None:
    """Execute notebooks and write their pages."""
    for name in names or NOTEBOOKS:
        if name not in NOTEBOOKS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(NOTEBOOKS)}")
        write(name)


if __name__ == "__main__":
    try:
        typer.run(main)
    except MlsparkError as error:
        typer.echo(f"notebooks: {error}", err=True)
        sys.exit(_USER_ERROR)
