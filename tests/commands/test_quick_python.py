"""A command takes the installed Spark's compiled files, and does not look for garbage at its end."""

import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from mlspark.commands import quick_python

INSTALLED = Path(pyspark.__file__).parents[1]
ARCHIVES = INSTALLED / "pyspark" / "python" / "lib"


def printed(code: str, *, path: str = "") -> str:
    """Return what a Python of its own prints, with `path` before all else where modules are looked for."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}.split(':')\n{code}"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout


def test_installed_spark_is_imported_under_spark_submit() -> None:
    archives = ":".join(map(str, sorted(ARCHIVES.glob("*.zip"), reverse=True)))
    assert ".zip" in printed("import pyspark; print(pyspark.__file__)", path=archives)
    code = "import mlspark.commands.job, pyspark, py4j; print(pyspark.__file__, py4j.__file__)"
    assert ".zip" not in printed(code, path=archives)


@pytest.mark.parametrize(
    "entry",
    [
        "/opt/spark/python/lib/pyspark.zip",  # a Spark that is not the installed one
        str(ARCHIVES / "users.zip"),
        str(INSTALLED / "pyspark" / "pyspark.zip"),
        "users.zip",
        "pyspark.zip",
        "/pyspark.zip",
    ],
)
def test_other_archives_stay(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setattr(sys, "path", [entry, *sys.path])
    before = list(sys.path)
    quick_python.prefer_installed_spark()
    assert sys.path == before


def test_archive_stays_where_the_package_around_it_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [str(ARCHIVES / "pyspark.zip"), *(entry for entry in sys.path if entry != str(INSTALLED))]
    monkeypatch.setattr(sys, "path", list(before))
    quick_python.prefer_installed_spark()
    assert sys.path == before


def test_garbage_is_looked_for_seldom_and_not_at_the_end() -> None:
    code = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 1000, gc.isenabled()))  # called after those that come
from mlspark.commands import quick_python
quick_python.collect_seldom()
print(gc.get_threshold()[0] >= 10_000, gc.get_freeze_count() > 1000)
"""
    assert printed(code) == "True False\nTrue True\n"
