"""A rank as a process of its own, without Spark: its first sign of life, its record of a failure, its end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlspark import storage
from mlspark.models.custom import CustomSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import driver_link
from mlspark.training.driver_link import Listener
from mlspark.training.spec import TrainingSpec

from ..conftest import wait_until
from .conftest import new_run

MODELS = """
import sys, threading, time
from torch import nn

class Linear(nn.Module):
    def __init__(self, tensors, num_outputs):
        super().__init__()
        self.layer = nn.Linear(tensors.num_dense, num_outputs)

    def forward(self, dense, ids):
        return self.layer(dense)

def fails(tensors, num_outputs):
    sys.stdout.buffer.write(b"\\xff\\xfe bytes\\n")
    sys.stdout.flush()
    raise RuntimeError("odd " + "x" * 10_000_000 + " \\udc80 end")

def waits(tensors, num_outputs):
    time.sleep(600)

def does_not_end(tensors, num_outputs):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return Linear(tensors, num_outputs)
"""


def started(spec: TrainingSpec, folder: Path, more: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """The only rank of a run, which finds `folder`/own_models.py."""
    (folder / "own_models.py").write_text(MODELS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = os.environ | ranks | {"PYTHONPATH": f"{folder}:{os.environ['PYTHONPATH']}"} | dict(more or {})
    return subprocess.Popen(
        [sys.executable, "-m", "mlspark.training.rank", spec.save()],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def of_model(folder: Path, snapshot: Snapshot, factory: str, **recovery: Any) -> TrainingSpec:
    import dataclasses

    from mlspark.training.settings import RecoverySettings

    spec = new_run(folder / "run", snapshot, num_processes=1, epochs=1, recovery=RecoverySettings(**recovery))
    return dataclasses.replace(spec, model=CustomSettings(factory=f"own_models:{factory}"))


def test_first_sign_of_life_comes_before_torch_is_imported(tmp_path: Path, snapshot: Snapshot) -> None:
    may_import = tmp_path / "may-import"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "class Wait:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        while name in ('torch', 'pyarrow', 'pydantic') and not os.path.exists({str(may_import)!r}):\n"
        "            time.sleep(0.02)\n"
        "sys.meta_path.insert(0, Wait())\n"
    )
    spec = of_model(tmp_path, snapshot, "Linear")
    with Listener("127.0.0.1", 1, lambda event: None) as listener:
        link = {driver_link.ADDRESS: listener.address, driver_link.TOKEN: listener.token, driver_link.HEARTBEAT: "0.05"}
        rank = started(spec, tmp_path, link)
        wait_until(lambda: 0 in listener.ranks, 60.0)
        before = listener.ranks[0].seen
        wait_until(lambda: listener.ranks[0].seen > before, 60.0)
        assert not listener.ranks[0].is_ready
        may_import.touch()
        assert rank.wait(120.0) == 0, rank.communicate()
        assert listener.wait_closed(120.0)
        assert listener.ranks[0].is_ready
        assert listener.all_are_done


def test_failure_of_any_length_and_letters_is_recorded(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = of_model(tmp_path, snapshot, "fails")
    rank = started(spec, tmp_path)
    output, _ = rank.communicate(timeout=240.0)
    assert rank.returncode == 1
    assert len(output) < 200_000
    record = storage.read_json(storage.join(spec.attempt_uri, "rank-0.error.json"))
    assert record["type"] == "RuntimeError"
    assert record["message"].startswith("odd xxx")
    assert record["message"].endswith("xxx \\udc80 end")
    assert "(of 10,000,010 characters)" in record["message"]
    assert len(record["message"]) < 21_000
    assert len(record["traceback"]) < 51_000
    assert record["traceback"].startswith("Traceback")


def test_rank_that_is_done_ends_whatever_its_code_left(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = of_model(tmp_path, snapshot, "does_not_end", end_seconds=1.0)
    started_at = time.monotonic()
    rank = started(spec, tmp_path)
    output, _ = rank.communicate(timeout=240.0)
    assert rank.returncode == 0, output
    assert b"the rank is done and does not end" in output
    assert storage.exists(storage.join(spec.attempt_uri, "rank-0.json"))
    assert time.monotonic() - started_at < 230


def test_rank_whose_driver_is_gone_ends_whatever_its_code_does(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from mlspark.training import rank_supervisor\nrank_supervisor.GRACE_SECONDS = 0.5\n"
    )
    spec = of_model(tmp_path, snapshot, "waits")
    with Listener("127.0.0.1", 1, lambda event: None) as listener:
        link = {driver_link.ADDRESS: listener.address, driver_link.TOKEN: listener.token, driver_link.HEARTBEAT: "0.05"}
        rank = started(spec, tmp_path, link)
        wait_until(lambda: 0 in listener.ranks and listener.ranks[0].is_ready)
    assert rank.wait(120.0) == 1


@pytest.mark.parametrize("text", ["short", "\udc80", "x" * 300])
def test_shortened_text_is_written_and_read(text: str) -> None:
    from mlspark.training.rank import shortened

    assert len(shortened(text, 100)) < 150
    assert shortened(text, 100).encode().decode() == shortened(text, 100)
