"""The pages of the notebooks are those of the notebooks as they stand; tests/notebooks executes them."""

import re
from pathlib import Path

import jupytext
import pytest

from tools import notebooks
from tools.notebooks import NOTEBOOKS, PAGES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_page_has_the_cells_of_its_notebook(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text()
    cells = jupytext.read(NOTEBOOKS[name]).cells
    place = 0
    for cell in cells:
        shown = cell.source if cell.cell_type == "markdown" else notebooks.code(cell.source)
        place = text.find(shown, place)
        assert place >= 0, f"{cell.source.splitlines()[0]}: run make notebooks ARGS={name}"
    assert text.count("\n```python\n") == sum(cell.cell_type == "code" for cell in cells), "run make notebooks"
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert sorted(pictures) == sorted(file.name for file in PAGES.glob(f"{name}-*.png"))
    # Nothing of the machine that wrote it.
    assert not re.search(rf"/tmp/|/root/|/home/\w|{re.escape(str(ROOT))}", text)


def test_every_notebook_has_a_page_and_an_entry() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {"index", *NOTEBOOKS}
    for file in (PAGES / "index.md", ROOT / "mkdocs.yml"):
        assert {name for name in NOTEBOOKS if f"{name}.md" in file.read_text()} == set(NOTEBOOKS)


def test_outputs_become_text_tables_and_pictures() -> None:
    cell = {"cell_type": "code", "source": "x", "metadata": {}}
    html = '<div><style scoped>\n.a {}\n</style>\n<table border="1" class="dataframe">\n  <tr><td>1</td></tr>\n</table>'
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": "noise"},
        {"output_type": "stream", "name": "stdout", "text": "said\n"},
        {"output_type": "execute_result", "data": {"text/plain": "  1", "text/html": html}},
        {"output_type": "display_data", "data": {"text/plain": "<Figure>", "image/png": "cG5n"}},
    ]
    hidden = {**cell, "outputs": outputs, "metadata": {"tags": [notebooks.HIDDEN]}}
    notebook = jupytext.reads("", fmt="py:percent")
    notebook.cells = [type(notebook)({**cell, "outputs": [type(notebook)(each) for each in outputs]})]
    text, pictures = notebooks.page("some", notebook)
    shown = (
        '```python\nx\n```\n\n```text\nsaid\n```\n\n<div class="frame"><table>\n<tr><td>1</td></tr></table></div>\n\n'
    )
    assert f"{shown}![what the cell above draws](some-1.png)\n\n---" in text
    assert pictures == {"some-1.png": b"png"}
    notebook.cells = [type(notebook)(hidden)]
    text, pictures = notebooks.page("some", notebook)
    assert "said" not in text
    assert not pictures
