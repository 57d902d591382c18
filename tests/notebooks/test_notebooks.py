"""Each notebook runs from its first cell to the last, in a kernel of its own and an empty folder.

`pytest` alone does not collect this folder (norecursedirs in pyproject.toml); `make test-notebooks` does, and so does
.ci/run. Without the real data notebooks run on what they say stands in for it.
"""

import re
from pathlib import Path

import pytest

from tools import notebooks
from tools.cluster.process import NotInstalledError
from tools.notebooks import NotebookError

from ..conftest import REAL_DATA


@pytest.mark.parametrize("name", notebooks.NOTEBOOKS)
def test_notebook_runs(name: str, tmp_path: Path) -> None:
    if name == "transfer" and not (REAL_DATA / "pretrained-cifar10-resnet").is_dir():
        pytest.skip(f"no pretrained-cifar10-resnet in {REAL_DATA}: set MLSPARK_DATA")
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    try:
        with notebooks.environment_of(name) as environment:
            kernel = {**environment, "TMPDIR": str(temporary)}
            done = notebooks.execute(notebooks.NOTEBOOKS[name], work, kernel)
    except NotInstalledError as missing:
        pytest.skip(str(missing))
    cells = [cell for cell in done.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [*work.iterdir(), *temporary.glob("mlspark-*")]  # it has a folder of its own, and removes it
    if name in notebooks.ON_SERVERS:
        assert cells[0].outputs[0].text == "not set, so left out: none\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [("y = x / 0", r"(?s:.*)ZeroDivisionError: division"), ("import os; os._exit(1)", "Kernel died")],
)
def test_cell_that_fails_is_named(line: str, message: str, tmp_path: Path) -> None:
    source = tmp_path / "broken.py"
    source.write_text(f"# %% [markdown]\n# # Title\n\n# %%\nx = 1\n\n# %%\n{line}\nprint(x)\n")
    with pytest.raises(NotebookError, match=rf"^broken.py, cell 3 \({re.escape(line)}\):\n{message}"):
        notebooks.execute(source, tmp_path, {})
