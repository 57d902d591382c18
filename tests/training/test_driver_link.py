"""The line to the driver, and the supervisor above a rank, with real sockets and processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mlspark.training import driver_link
from mlspark.training.driver_link import Link, Listener
from mlspark.training.events import Event, Resumed


def wait_until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def seen() -> list[Event]:
    return []


def connected(listener: Listener, monkeypatch: pytest.MonkeyPatch, rank: int = 0) -> Link:
    monkeypatch.setenv(driver_link.ADDRESS, listener.address)
    monkeypatch.setenv(driver_link.TOKEN, listener.token)
    return Link(rank, heartbeat_seconds=0.05)


def test_events_come_in_order_and_the_end_is_seen(seen: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener("127.0.0.1", seen.append) as listener:
        rank = connected(listener, monkeypatch)
        for number in range(200):
            rank.event(Resumed(1, number))
        wait_until(lambda: len(seen) == 200)
        state = listener.ranks[0]
        assert (state.pid, state.closed, state.is_done) == (os.getpid(), None, False)
        before = state.seen
        wait_until(lambda: state.seen > before)  # a heartbeat
        rank.failed({"message": "odd"})
        rank.done()
        rank.close()
        assert listener.wait_closed(10.0)
        assert state.failure == {"message": "odd"}
        assert state.is_done
    assert seen == [Resumed(1, number) for number in range(200)]


def test_request_to_stop_reaches_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener("127.0.0.1", lambda event: None) as listener:
        ranks = [connected(listener, monkeypatch, rank) for rank in range(3)]
        wait_until(lambda: len(listener.ranks) == 3)
        listener.stop()
        for rank in ranks:
            assert rank.should_stop.wait(10.0)
            rank.close()


def test_stranger_without_the_token_is_not_heard(seen: list[Event]) -> None:
    with Listener("127.0.0.1", seen.append) as listener:
        host, _, port = listener.address.partition(":")
        for hello in (b'{"token": "guess", "rank": 0}\n', b"GET / HTTP/1.1\r\n\r\n", b"\n"):
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(hello + json.dumps({"kind": "event", "event": "epoch"}).encode() + b"\n")
                assert stranger.recv(10) == b""
        assert (seen, listener.ranks) == ([], {})


def test_handler_that_raises_is_not_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(event: Event) -> None:
        calls.append(event)
        raise ValueError("enough")

    with Listener("127.0.0.1", fail) as listener:
        rank = connected(listener, monkeypatch)
        for _ in range(3):
            rank.event(Resumed(1, 1))
        rank.done()
        wait_until(lambda: 0 in listener.ranks and listener.ranks[0].is_done)
        rank.close()
        assert str(listener.error) == "enough"
    assert len(calls) == 1


def test_driver_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv(driver_link.ADDRESS, f"127.0.0.1:{port}")
    monkeypatch.setenv(driver_link.TOKEN, "token")
    with pytest.raises(OSError, match=f"cannot reach the driver at 127.0.0.1:{port} .*spark.driver.host"):
        Link(0, heartbeat_seconds=1.0)


def test_rank_without_a_driver_talks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(driver_link.ADDRESS, raising=False)
    alone = Link(0, heartbeat_seconds=1.0)
    alone.event(Resumed(1, 1))
    alone.close()
    assert not alone.should_stop.is_set()


SUPERVISED = [sys.executable, "-m", "mlspark.training.rank_supervisor"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("pass", 0), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137)],
)
def test_supervisor_passes_the_status_on(code: str, status: int) -> None:
    done = subprocess.run([*SUPERVISED, sys.executable, "-c", code], timeout=30, check=False)
    assert done.returncode == status


@pytest.mark.parametrize("end", ["supervisor", "group of the parent"])
def test_rank_gets_time_to_save(tmp_path: Path, end: str) -> None:
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    code = (
        "import pathlib, signal, sys, time\n"
        f"def save(*_): time.sleep(0.5); pathlib.Path({str(saved)!r}).touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)\n"
    )
    command = [*SUPERVISED, sys.executable, "-c", code]
    if end == "supervisor":
        supervisor = subprocess.Popen(command)
        wait_until(ready.exists)
        supervisor.terminate()
        assert supervisor.wait(10.0) == 143
    else:  # as Spark's Python ends its group
        parent = subprocess.Popen(
            [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"], start_new_session=True
        )
        wait_until(ready.exists)
        os.killpg(parent.pid, signal.SIGHUP)
        parent.wait()
    wait_until(saved.exists)


def test_nothing_is_left_when_the_parent_is_killed_and_the_rank_is_stopped(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    rank = f"import os, pathlib, time; pathlib.Path({str(noted)!r}).write_text(str(os.getpid())); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({[*SUPERVISED, sys.executable, '-c', rank]!r})"]
    )
    wait_until(lambda: noted.exists() and noted.read_text())
    pid = int(noted.read_text())
    supervisor = psutil.Process(pid).ppid()
    os.kill(pid, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    wait_until(lambda: is_gone(pid) and is_gone(supervisor))
