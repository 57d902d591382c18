"""What takes seconds to import is imported beside Spark's start, and an error of it is told where the work is called."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mlspark.commands.job import Later

from ..conftest import wait_until


def test_module_is_imported_in_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_work.py").write_text(
        "import threading\nthread = threading.get_ident()\n"
        "def work(spark, settings):\n    return {'spark': spark, 'settings': settings}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_work", raising=False)
    later: Any = Later("slow_work", "work")
    later.begin()
    wait_until(lambda: hasattr(sys.modules.get("slow_work"), "work"), 60.0)
    assert later("session", "pipeline") == {"spark": "session", "settings": "pipeline"}
    assert sys.modules["slow_work"].thread != threading.get_ident()


def test_module_that_fails_is_told_once_by_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_work.py").write_text("raise ImportError('no such library')\n")
    monkeypatch.syspath_prepend(tmp_path)
    later: Any = Later("broken_work", "work")
    later.begin()
    wait_until(lambda: all("broken_work" not in t.name for t in threading.enumerate()), 60.0)
    with pytest.raises(ImportError, match="no such library"):
        later(None, None)
    assert capfd.readouterr().err == ""
