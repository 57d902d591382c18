"""A promotion that is killed between any two of its steps leaves one version in use, and the next call finishes it."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlspark.stages import promotion_audit
from mlspark.stages.promote import promote, roll_back

from ..conftest import ROOT
from .conftest import Registry, new_registry

SCRIPT = """
import os, signal, sys
from mlspark import storage
from mlspark.registry import versions
from mlspark.settings import loading
from mlspark.stages import promote, promotion_audit, promotion_steps

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

delete = storage.delete
AT = {
    "decided": lambda: setattr(promotion_steps, "_finish", die),
    "moved": lambda: setattr(versions, "annotate", die),
    "annotated": lambda: setattr(promotion_audit, "append", die),
    "audited": lambda: setattr(storage, "delete", lambda uri: die() if uri.endswith(".pending.json") else delete(uri)),
}
for argument in sys.argv[1:]:
    step, what, config = argument.split("=")
    child = os.fork()  # what is imported, is for all of them
    if not child:
        AT[step]()
        settings = loading.load([config])
        promote.promote(settings) if what == "promote" else promote.roll_back(settings)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (argument, status)
"""
STEPS = ("decided", "moved", "annotated", "audited")


@pytest.mark.parametrize("what", ["promote", pytest.param("rollback", marks=pytest.mark.slow)])
def test_one_version_is_in_use_and_the_next_call_goes_on(store: str, tmp_path: Path, what: str) -> None:
    registries: dict[str, Registry] = {}
    arguments = []
    for step in STEPS:
        folder = tmp_path / step
        folder.mkdir()
        registry = registries[step] = new_registry(store, folder)
        registry.add(80)
        promote(registry.settings)
        registry.add(10)
        if what == "rollback":
            promote(registry.settings)
        (folder / "example.yaml").write_text(registry.settings.to_yaml())
        arguments.append(f"{step}={what}={folder / 'example.yaml'}")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    before, after = (1, 2) if what == "promote" else (2, 1)
    verdict = "promoted" if what == "promote" else "rolled_back"
    for step, registry in registries.items():
        assert registry.aliases["champion"] == (before if step == "decided" else after), step
        pending = registry.home / "promotions" / f"{registry.name}.pending.json"
        assert pending.exists()
        report = promote(registry.settings) if what == "promote" else roll_back(registry.settings)
        assert (report["verdict"], report["champion_before"], report["champion_after"]) == (verdict, before, after)
        assert registry.aliases["champion"] == after
        assert registry.tags(after)["mlspark.promotion"] == verdict
        decisions = promotion_audit.read(registry.settings.table("promotions"), registry.name)
        assert [decision.champion_after for decision in decisions] == ([1, 2] if what == "promote" else [1, 2, 1]), step
        assert not pending.exists()
    assert promote(registry.settings, after)["verdict"] == "in_use"
