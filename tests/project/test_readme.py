"""Every command of the README's bash blocks, run in order in a folder that looks like the repository."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


@pytest.mark.slow
def test_commands_of_the_readme_work(tmp_path: Path) -> None:
    if not Path(sys.prefix, ".ready").exists():
        pytest.skip("the commands need the environment of `make setup`")
    for entry in ("Makefile", "conf", "constraints.txt", "jobs", "pyproject.toml", "schemas", "scripts"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    # A reader's environment: what make and this test run have set must not leak in.
    environment = {name: os.environ[name] for name in ("HOME", "JAVA_HOME", "LANG", "TMPDIR") if name in os.environ}
    environment |= {"VENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr[-3000:]}"
        if block == "make demo\n":
            assert "From raw rows to scores" in done.stdout
            assert re.search(r"18,000 read .*\n +17,700 good, 300 quarantined", done.stdout)
    prepared, trained, promoted, scored = (
        json.loads((tmp_path / f"{job}.json").read_text()) for job in ("prepare", "train", "promote", "score")
    )
    assert prepared["already_done"]
    assert trained["model_version"] == promoted["version"] == 2
    assert promoted["champion_before"] == 1
    assert scored["model_version"] == promoted["champion_after"]
    assert trained["metrics"]["test"]["roc_auc"] > 0.85


@pytest.mark.parametrize("file", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_between_pages_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
        assert (file.parent / target).exists(), f"{file.name}: {target}"
