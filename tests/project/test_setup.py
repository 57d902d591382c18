"""scripts/setup.sh and the Makefile, on machines that lack something."""

import os
import re
import shutil
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


def machine(tmp_path: Path, *, has_uv: bool, pip_has_uv: bool) -> dict[str, str]:
    """Return PATH of a machine whose python, uv and pip note in `calls` what they are asked for, and install nothing."""
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    for name in ("bash", "cat", "chmod", "cp", "dirname", "grep", "head", "id", "mkdir", "rm", "sed", "tail"):
        (tools / name).symlink_to(str(shutil.which(name)))
    script(tools / "java", """echo 'openjdk version "17.0.2"' >&2""")
    uv = script(tmp_path / "uv", f"""[ "$1" = --version ] || echo "uv $*" >> {calls}
if [ "$1" = venv ]; then mkdir -p "$5/bin"; cp {tools}/python "$5/bin/python"; fi""")  # fmt: skip
    fetched = f"cp {uv} {tmp_path}/venv/bin/uv" if pip_has_uv else "exit 1"
    script(tools / "python", f"""case "$*" in
      -c*) echo 3.12 ;;
      "-m venv "*) mkdir -p "$3/bin"; cp {tools}/python "$3/bin/python" ;;
      *" uv") echo pip uv >> {calls}; {fetched} ;;
      "-m pip "*) echo "pip $*" >> {calls} ;;
    esac""")  # fmt: skip
    if has_uv:
        (tools / "uv").symlink_to(uv)
    return {"PATH": str(tools)}


@pytest.mark.parametrize(
    ("has_uv", "pip_has_uv", "calls", "message"),
    [
        (True, False, ["uv venv", "uv pip"], "with uv"),
        (False, True, ["pip uv", "uv pip"], "with {venv}/bin/uv"),
        (False, False, ["pip uv", "pip -m"], "with pip (several minutes)"),
    ],
)
def test_packages_come_by_the_machines_uv_else_by_a_fetched_one_else_by_pip(
    tmp_path: Path, has_uv: bool, pip_has_uv: bool, calls: list[str], message: str
) -> None:
    environment = machine(tmp_path, has_uv=has_uv, pip_has_uv=pip_has_uv)
    done = setup(tmp_path, "python", **environment)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "calls").read_text().splitlines()
    assert [" ".join(line.split()[:2]) for line in lines] == calls
    assert lines[-1].endswith("--constraint constraints.txt --editable .[dev]")
    venv = tmp_path / "venv"
    assert f"setup: installing the packages into {venv} {message.format(venv=venv)}\n" in done.stdout
    assert (venv / ".ready").read_text() == f"{venv}\n"


def test_make_alone_lists_the_targets() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, env=environment).stdout
    names = re.findall(r"^ +make ([a-z-]+) ", listed, re.M)
    assert {"help", "setup", "demo", "test", "lint", "bench", "clean"} <= set(names)
