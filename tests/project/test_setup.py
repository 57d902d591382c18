"""scripts/setup.sh and the Makefile, on machines that lack something."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def setup(tmp_path: Path, python: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "setup.sh", python, tmp_path / "venv"],
        capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("echo 3.10", "is Python 3.10, but 3.11, 3.12 or 3.13 is needed; name one: make setup PYTHON=python3.12"),
        ("echo 3.14", "is Python 3.14, but 3.11, 3.12 or 3.13 is needed; name one: make setup PYTHON=python3.12"),
        ("exit 127", "does not run; install Python 3.11, 3.12 or 3.13, or name one: make setup PYTHON=python3.12"),
    ],
)
def test_unfit_python_is_refused_on_one_line(tmp_path: Path, python: str, message: str) -> None:
    done = setup(tmp_path, script(tmp_path / "python", python))
    assert done.returncode == 1
    assert done.stderr == f"setup: {tmp_path / 'python'} {message}\n"
    assert not (tmp_path / "venv").exists()


def test_old_java_is_refused_on_one_line(tmp_path: Path) -> None:
    script(tmp_path / "jdk" / "bin" / "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    done = setup(tmp_path, script(tmp_path / "python", "echo 3.12"), JAVA_HOME=str(tmp_path / "jdk"))
    assert done.returncode == 1
    told = r"setup: Spark needs Java 17 or 21, found 11; install one .* or point JAVA_HOME at it\n"
    assert re.fullmatch(told, done.stderr)


def test_make_alone_lists_the_targets() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, env=environment).stdout
    names = re.findall(r"^ +make ([a-z-]+) ", listed, re.M)
    assert {"help", "setup", "demo", "test", "lint", "bench", "clean"} <= set(names)
