"""Environments for packages that mlspark does not depend on, kept in the user's cache for the next time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def python_with(name: str, packages: Sequence[str]) -> str:
    """Return the interpreter of the environment `name`, made with these requirements where it is not there yet."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlspark" / name
    python = str(home / "bin" / "python")
    if not (home / ".ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv:
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(home)], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (home / ".ready").touch()
    return python
