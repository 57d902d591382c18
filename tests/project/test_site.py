"""The documentation: the site builds, its reference is that of the code, its snippets run or are what the code takes."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from typer.testing import CliRunner

from mlspark.commands import new
from mlspark.settings import loading
from mlspark.tuning import search
from tools import docs_reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NEW = [DOCS / "tutorial.md", *sorted((DOCS / "explanation").glob("*.md")), *sorted((DOCS / "migrating").glob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of these languages, in order."""
    return re.findall(rf"^```(?:{'|'.join(languages)})(?: [^\n]*)?\n(.*?)^```$", page.read_text(), re.M | re.S)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("name", docs_reference.PAGES)
def test_reference_is_what_the_code_says(name: str) -> None:
    page = DOCS / "reference" / name
    assert page.read_text() == docs_reference.PAGES[name](), "run: make docs-reference"


def test_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    if not mkdocs.exists():
        pytest.skip("mkdocs is not installed: make setup")
    command = [mkdocs, "build", "--quiet", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / "index.html").read_text()
    assert "From a CSV file to scores" in home
    assert not re.findall(r"<(?:script|img)[^>]*src=\"https?:|<link[^>]*rel=\"stylesheet\"[^>]*href=\"https?:", home)
    # The index as a script, and what stands for a worker: a browser fetches and starts neither from a folder.
    assert (tmp_path / "search" / "search_index.js").stat().st_size > 100_000
    assert 'src="assets/iframe-worker.js"' in home
    assert "```" not in (tmp_path / "streaming.html").read_text()  # code within tables, too


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the table of the pages: 4,000 rows in two files."""
    rng = np.random.default_rng(0)
    for start in (0, 2000):
        rows = {
            "row_id": np.arange(start, start + 2000),
            "age": rng.integers(10, 90, 2000).astype(np.float32),
            "hours": rng.integers(0, 60, 2000).astype(np.float32),
            "label": rng.integers(0, 2, 2000).astype(np.float32),
        }
        deltalake.write_deltalake(str(tmp_path / "lake" / "clicks"), pa.table(rows), mode="append")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in NEW if blocks(page, "python")], ids=named)
def test_python_of_the_pages_runs(page: Path, lake: Path) -> None:
    """In order, in one namespace; `train` is the reader's, and so are rank and world size."""
    for rank in range(2):
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        names = {"torch": torch, "rank": rank, "world_size": 2, "train": lambda *batch, into=seen: into.append(batch)}
        for block in blocks(page, "python"):
            exec(compile(block, named(page), "exec"), names)
        assert all(x.shape == (len(y), 2) and x.dtype == torch.float32 for x, y in seen)
        if len(blocks(page, "python")) == 2 and page.parent.name == "migrating":
            # Two epochs, and the third one without its first two batches.
            assert len(seen) == 3 * names["rows"].num_steps - 2


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_of_other_libraries_is_python(page: Path) -> None:
    for block in blocks(page, "py"):
        compile(block, named(page), "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=named)
def test_yaml_of_the_pages_is_taken_by_the_settings(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laid over those of the census; entries alone are features, dotted keys are of a search."""
    monkeypatch.chdir(ROOT)
    for number, block in enumerate(blocks(page, "yaml")):
        content = yaml.safe_load(block)
        if isinstance(content, list):
            content = {"features": {"inputs": content}}
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(content))
        if all("." in key for key in content):
            assert search.load(str(file), loading.load(["conf/census.yaml"])).names().keys() == content.keys()
            continue
        settings = loading.load(["conf/census.yaml", str(file)]).model_dump(mode="json")
        for section, keys in content.items():
            assert section in settings
            assert not isinstance(keys, dict) or keys.keys() <= settings[section].keys()


@cache
def known_commands() -> dict[str, Any]:
    """Return the commands by command line. Cached, as it imports what they import."""
    return dict(docs_reference.command_lines())


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of each line of mlspark's in the console blocks (those after "$ ") and shell blocks of a page."""
    shell = "\n".join(blocks(page, "bash"))
    console = "\n".join(
        line for block in blocks(page, "console") for line in re.findall(r"^\$ ((?:.*\\\n)*.*)", block, re.M)
    )
    for line in re.sub(r"\\\n", " ", f"{shell}\n{console}").splitlines():
        if found := re.search(r"(?<![-\w/\[\"])(mlspark|jobs/\w+\.py) .*", line):
            yield shlex.split(found[0], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_the_pages_have_such_options(page: Path) -> None:
    for words in command_lines(page):
        names = [name for name in (" ".join(words[:length]) for length in (3, 2, 1)) if name in known_commands()]
        if words[:2] == ["mlspark", "--help"] or (words == ["mlspark"]):
            continue
        assert names, f"{named(page)}: no such command: {' '.join(words)}"
        known = {option for parameter in known_commands()[names[0]].params for option in parameter.opts} | {"--help"}
        given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= known, f"{named(page)}: {' '.join(words)}"


def test_tutorial_makes_the_project_that_it_describes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "tutorial.md"
    monkeypatch.chdir(tmp_path)
    [rows] = blocks(page, "python")
    exec(compile(rows, named(page), "exec"), {})
    [words] = command_lines(page)
    said = CliRunner().invoke(new.app, words[2:], catch_exceptions=False).stdout
    assert "all 2,000 rows" in said
    assert "age: int; taken for errors: forty" in said
    assert "task: binary, as earns has the 2 values less, more" in said
    settings = loading.load(["earners/conf/pipeline.yaml"])
    assert (settings.name, settings.training.num_processes) == ("earners", 1)
    assert " run $(CONFIG) --reports reports" in Path("earners", "Makefile").read_text()
