"""The line to the driver, and the supervisor above a rank, with real sockets and processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from mlspark.training import barrier_stage, driver_link
from mlspark.training.driver_link import Link, Listener, RankState
from mlspark.training.events import Event, Resumed
from mlspark.training.rank_supervisor import GRACE_SECONDS
from mlspark.training.settings import RecoverySettings

from ..conftest import is_alive, wait_until


def heard(connection: socket.socket) -> bytes:
    """All that comes until the other end ends the connection."""
    content = b""
    with contextlib.suppress(ConnectionResetError):  # ended with something unread
        while chunk := connection.recv(4096):
            content += chunk
    return content


def connect(listener: Listener) -> socket.socket:
    host, _, port = listener.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=120.0)


@pytest.fixture
def seen() -> list[Event]:
    return []


def connected(listener: Listener, monkeypatch: pytest.MonkeyPatch, rank: int = 0) -> Link:
    monkeypatch.setenv(driver_link.ADDRESS, listener.address)
    monkeypatch.setenv(driver_link.TOKEN, listener.token)
    return Link(rank, heartbeat_seconds=0.05)


def test_events_come_in_order_and_the_end_is_seen(seen: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener("127.0.0.1", 3, seen.append) as listener:
        rank = connected(listener, monkeypatch)
        for number in range(200):
            rank.event(Resumed(1, number))
        wait_until(lambda: len(seen) == 200)
        state = listener.ranks[0]
        assert (state.pid, state.closed, state.done) == (os.getpid(), None, None)
        before = state.seen
        wait_until(lambda: state.seen > before)  # a heartbeat
        rank.failed({"message": "odd"})
        rank.done()
        rank.close()
        assert listener.wait_closed(120.0)
        assert state.failure == {"message": "odd"}
        assert state.done is not None
    assert seen == [Resumed(1, number) for number in range(200)]


def test_request_to_stop_reaches_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener("127.0.0.1", 3, lambda event: None) as listener:
        ranks = [connected(listener, monkeypatch, rank) for rank in range(3)]
        wait_until(lambda: len(listener.ranks) == 3)
        listener.stop()
        for rank in ranks:
            assert rank.should_stop.wait(120.0)
            assert rank.is_told_to_stop
            rank.close()


def test_stranger_without_the_token_is_not_heard(seen: list[Event]) -> None:
    with Listener("127.0.0.1", 3, seen.append) as listener:
        host, _, port = listener.address.partition(":")
        for hello in (b'{"proof": "guess", "rank": 0}\n', b"GET / HTTP/1.1\r\n\r\n", b"\n", b"[1]\n", b"\xff\n"):
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(hello + json.dumps({"kind": "event", "event": "epoch"}).encode() + b"\n")
                assert heard(stranger).count(b"\n") == 1  # what it is to prove itself with, and no more
        assert (seen, listener.ranks) == ([], {})


def test_handler_that_raises_is_not_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(event: Event) -> None:
        calls.append(event)
        raise ValueError("enough")

    with Listener("127.0.0.1", 3, fail) as listener:
        rank = connected(listener, monkeypatch)
        for _ in range(3):
            rank.event(Resumed(1, 1))
        rank.done()
        wait_until(lambda: 0 in listener.ranks and listener.ranks[0].done)
        rank.close()
        listener.wait_delivered(120.0)  # events are handled in another thread than the one that heard of the end
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


@pytest.mark.parametrize("is_closed", [False, True])
def test_rank_that_loses_its_driver_is_asked_to_stop_and_then_ended(
    monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    monkeypatch.setattr(driver_link, "GRACE_SECONDS", 0.1)
    lost, before = threading.Event(), set(threading.enumerate())
    with Listener("127.0.0.1", 1, lambda event: None) as listener:
        monkeypatch.setenv(driver_link.ADDRESS, listener.address)
        monkeypatch.setenv(driver_link.TOKEN, listener.token)
        rank = Link(0, heartbeat_seconds=0.05, on_loss=lost.set)
        [follows] = [thread for thread in threading.enumerate() if thread not in before and thread.name == "commands"]
        wait_until(lambda: 0 in listener.ranks)
        if is_closed:  # it has taken leave
            rank.close()
    follows.join(120.0)
    assert (lost.is_set(), rank.should_stop.is_set()) == (not is_closed, not is_closed)
    rank.close()


def test_slow_handler_of_events_stops_no_heartbeat(seen: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()

    def handle(event: Event) -> None:
        may_go_on.wait(600.0)
        seen.append(event)

    with Listener("127.0.0.1", 1, handle) as listener:
        rank = connected(listener, monkeypatch)
        for number in range(20):
            rank.event(Resumed(1, number))
        wait_until(lambda: 0 in listener.ranks)
        for _ in range(5):
            before = listener.ranks[0].seen
            wait_until(lambda before=before: listener.ranks[0].seen > before)  # type: ignore[misc]
        assert seen == []
        listener.wait_delivered(0.1)  # says that it is left behind
        may_go_on.set()
        rank.close()
        listener.wait_delivered(120.0)
        assert seen == [Resumed(1, number) for number in range(20)]


def test_secret_is_not_sent_and_what_was_sent_is_good_for_once(
    seen: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = b""

    def pass_on(one: socket.socket, other: socket.socket) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while chunk := one.recv(4096):
                sent += chunk
                other.sendall(chunk)

    with Listener("127.0.0.1", 1, seen.append) as listener, socket.create_server(("127.0.0.1", 0)) as between:
        monkeypatch.setenv(driver_link.ADDRESS, f"127.0.0.1:{between.getsockname()[1]}")
        monkeypatch.setenv(driver_link.TOKEN, listener.token)

        def serve() -> None:
            from_rank, _ = between.accept()
            to_driver = connect(listener)
            threading.Thread(target=pass_on, args=(to_driver, from_rank), daemon=True).start()
            pass_on(from_rank, to_driver)
            to_driver.shutdown(socket.SHUT_RDWR)  # closed alone it would stay open while the other thread waits on it
            to_driver.close()

        threading.Thread(target=serve, daemon=True).start()
        rank = Link(0, heartbeat_seconds=0.05)
        rank.event(Resumed(1, 1))
        wait_until(lambda: seen)
        rank.close()
        assert listener.wait_closed(120.0)
        assert listener.token.encode() not in sent
        [hello] = [line for line in sent.splitlines() if b'"pid"' in line]
        listener.ranks.clear()
        with connect(listener) as replayed:
            replayed.sendall(hello + b"\n")
            assert heard(replayed).count(b"\n") == 1
        assert listener.ranks == {}


def test_rank_gives_nothing_to_another_driver(seen: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_link, "_CONNECT_SECONDS", 0.5)
    with Listener("127.0.0.1", 1, seen.append) as listener:
        monkeypatch.setenv(driver_link.ADDRESS, listener.address)
        monkeypatch.setenv(driver_link.TOKEN, "of another run")
        with pytest.raises(OSError, match="cannot reach the driver at"):
            Link(0, heartbeat_seconds=1.0)
        assert listener.ranks == {}


def test_silent_connections_hold_neither_threads_nor_ranks_up(
    seen: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(Listener("127.0.0.1", 1, seen.append))
        for _ in range(200):
            stack.enter_context(connect(listener))
        rank = connected(listener, monkeypatch)
        rank.event(Resumed(1, 1))
        wait_until(lambda: seen)
        wait_until(lambda: threading.active_count() < before + 45)
        rank.close()
    wait_until(lambda: threading.active_count() <= before + 1)


def test_connection_that_proves_nothing_ends_in_time(seen: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_link, "_PROOF_SECONDS", 0.3)
    with Listener("127.0.0.1", 1, seen.append) as listener, connect(listener) as stranger:
        stranger.settimeout(0.1)
        with contextlib.suppress(OSError):
            for _ in range(100):  # a byte at a time does not make it longer
                stranger.sendall(b" ")
                time.sleep(0.05)
            raise AssertionError("still there")


@pytest.mark.parametrize("number", [0, 1, 7, -1])
def test_each_rank_of_the_attempt_connects_once(
    seen: list[Event], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    with Listener("127.0.0.1", 1, seen.append) as listener:
        rank = connected(listener, monkeypatch)
        wait_until(lambda: 0 in listener.ranks)
        other = connected(listener, monkeypatch, number)
        wait_until(lambda: f"says it is rank {number} of 1: refused" in caplog.text)
        other.event(Resumed(9, 9))
        rank.event(Resumed(1, 1))
        wait_until(lambda: seen)
        assert seen == [Resumed(1, 1)]
        assert listener.ranks[0].closed is None
        other.close()
        rank.close()


def test_line_without_end_is_not_kept(
    seen: list[Event], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver_link, "_MOST_BYTES", 100_000)
    with Listener("127.0.0.1", 1, seen.append) as listener:
        rank = connected(listener, monkeypatch)
        rank._is_closed = True  # no heartbeat ends the line
        assert rank._socket is not None
        with contextlib.suppress(OSError):
            rank._socket.sendall(b"x" * 10_000_000)
        assert listener.wait_closed(120.0)
        assert "its line to the driver broke: a line of more than 100,000 bytes" in caplog.text
        rank.close()


def test_rank_that_imports_may_be_silent_for_longer() -> None:
    recovery = RecoverySettings(silent_seconds=8.0, start_seconds=120.0)
    now = time.monotonic()
    with Listener("127.0.0.1", 1, lambda event: None) as listener:
        listener.ranks[0] = RankState("host", 1, seen=now - 60.0)
        assert barrier_stage._silent_rank(recovery, 1, listener, now - 60.0) == ""
        listener.ranks[0].is_ready = True
        assert "silent for 60 s" in barrier_stage._silent_rank(recovery, 1, listener, now - 60.0)
        listener.ranks.clear()
        assert "no sign of life in the 120 s" in barrier_stage._silent_rank(recovery, 1, listener, now - 121.0)


def test_ranks_that_are_done_have_a_limited_time_to_end() -> None:
    recovery, now = RecoverySettings(end_seconds=30.0), time.monotonic()
    with Listener("127.0.0.1", 2, lambda event: None) as listener:
        listener.ranks[0] = RankState("host", 1, seen=now, done=now - 1000.0)
        assert not barrier_stage._are_overdue(recovery, listener)  # the other one trains
        listener.ranks[1] = RankState("host", 2, seen=now, done=now - 30.0)
        assert not barrier_stage._are_overdue(recovery, listener)
        listener.ranks[1].done = now - 30.0 - GRACE_SECONDS - 1.0
        assert barrier_stage._are_overdue(recovery, listener)


SUPERVISED = [sys.executable, "-m", "mlspark.training.rank_supervisor"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("pass", 0), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137)],
)
def test_supervisor_passes_the_status_on(code: str, status: int) -> None:
    done = subprocess.run([*SUPERVISED, sys.executable, "-c", code], timeout=240, check=False)
    assert done.returncode == status


@pytest.mark.parametrize("end", ["supervisor", "group of the parent"])
def test_rank_gets_time_to_save(tmp_path: Path, end: str) -> None:
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    code = (
        "import pathlib, signal, sys, time\n"
        f"def save(*_): time.sleep(0.5); pathlib.Path({str(saved)!r}).touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(300)\n"
    )
    command = [*SUPERVISED, sys.executable, "-c", code]
    if end == "supervisor":
        supervisor = subprocess.Popen(command)
        wait_until(ready.exists)
        supervisor.terminate()
        assert supervisor.wait(120.0) == 143
    else:  # as Spark's Python ends its group
        hung_up = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # ignored where nohup runs the tests
        parent = subprocess.Popen(
            [sys.executable, "-c", f"{hung_up}import subprocess; subprocess.run({command!r})"], start_new_session=True
        )
        wait_until(ready.exists)
        os.killpg(parent.pid, signal.SIGHUP)
        parent.wait()
    wait_until(saved.exists)


def test_nothing_is_left_when_the_parent_is_killed_and_the_rank_is_stopped(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    rank = f"import os, pathlib, time; pathlib.Path({str(noted)!r}).write_text(str(os.getpid())); time.sleep(300)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({[*SUPERVISED, sys.executable, '-c', rank]!r})"]
    )
    wait_until(lambda: noted.exists() and noted.read_text())
    pid = int(noted.read_text())
    supervisor = psutil.Process(pid).ppid()
    os.kill(pid, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(pid) and not is_alive(supervisor))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process that leaves the group is not found")
@pytest.mark.parametrize("has_own_session", [False, True])
def test_what_a_rank_has_started_ends_with_it(tmp_path: Path, has_own_session: bool) -> None:
    noted = tmp_path / "pid"
    left = (
        "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(noted)!r}).write_text(str(os.getpid())); time.sleep(300)"
    )
    code = (
        "import pathlib, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {left!r}], start_new_session={has_own_session})\n"
        f"while not (pathlib.Path({str(noted)!r}).exists() and pathlib.Path({str(noted)!r}).read_text()): time.sleep(0.01)\n"
        "print('done')\n"
    )
    # The pipe ends only when the last process that holds it does.
    start = partial(barrier_stage._started, [*SUPERVISED, sys.executable, "-c", code])
    status, output = barrier_stage._output_of(start, shows_output=False)
    assert (status, output) == (0, "done\n")
    assert not is_alive(int(noted.read_text()))


def test_output_may_be_any_bytes_and_its_end_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'\xff' + b'x' * 5_000_000 + b'\n\xe9t\xc3\xa9 end'); sys.exit(3)"
    start = partial(barrier_stage._started, [*SUPERVISED, sys.executable, "-c", code])
    status, output = barrier_stage._output_of(start, shows_output=True)
    assert status == 3
    assert output.endswith("x\n\ufffdt\xe9 end")
    assert len(output) == 20_000
    shown = capfd.readouterr().out
    assert len(shown) > 5_000_000
    assert shown.endswith("end")


def test_output_is_not_waited_for_when_something_else_holds_the_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barrier_stage, "_OUTPUT_SECONDS", 0.5)
    noted = tmp_path / "pid"
    left = f"import os, pathlib, time; pathlib.Path({str(noted)!r}).write_text(str(os.getpid())); time.sleep(300)"
    code = (
        "import pathlib, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {left!r}], start_new_session=True)\n"
        f"while not (pathlib.Path({str(noted)!r}).exists() and pathlib.Path({str(noted)!r}).read_text()): time.sleep(0.01)\n"
        "print('done', flush=True)\n"
    )
    start = partial(barrier_stage._started, [sys.executable, "-c", code])
    assert barrier_stage._output_of(start, shows_output=False) == (0, "done\n")
    os.kill(int(noted.read_text()), signal.SIGKILL)
