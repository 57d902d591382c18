"""The tests are named alike in every process: three collect them side by side, and stop where a name differs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_another_process_names_the_tests_alike(request: pytest.FixtureRequest) -> None:
    """Another order of sets, and later: bytes with a moment in them (gzip's header) were once the name of a test."""
    chosen = {f"{file}::{name}" for file, _, name in (item.location for item in request.session.items)}
    there = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", "tests"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert there.returncode == 0, there.stdout + there.stderr
    assert chosen - set(there.stdout.splitlines()) == set()
