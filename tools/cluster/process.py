"""Server processes that end with their context, and with this process however it ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyspark

from mlspark.errors import MlsparkError

_STOP_SECONDS = 30
SHORT_LIVED_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""For a JVM that runs for minutes: starts in two thirds of the time (two cores), never becomes as fast as others."""
SPARK_HOME = Path(pyspark.__file__).parent
SPARK_JARS = SPARK_HOME / "jars"

Answer = TypeVar("Answer")


class ClusterError(MlsparkError):
    """A server cannot be installed, started or reached."""


class NotInstalledError(ClusterError):
    """The programs of a server are missing, and are not ours to install."""


@dataclass(frozen=True)
class Process:
    """A server that has been started; whether it answers is for `wait` to find out."""

    name: str
    supervisor: "subprocess.Popen[bytes]"
    log: Path
    """Everything that the server prints; removed when the server has ended."""
    output: BinaryIO
    """The same file, open: still there for the message that tells why the server has ended."""

    @property
    def pid(self) -> int:
        """The supervisor: the server is its only child."""
        return self.supervisor.pid

    def wait(self, ready: Callable[[], Answer | None], *, seconds: float = 180.0) -> Answer:
        """Return the first answer of `ready` that is not None, asked ten times a second.

        Raises:
            ClusterError: the server ended, or is not ready in time; holds the last lines of its log.
        """
        end = time.monotonic() + seconds
        while (answer := ready()) is None:
            if self.supervisor.poll() is not None:
                raise ClusterError(f"{self.name} ended before it was ready; its log:\n{self._log_tail()}")
            if time.monotonic() > end:
                raise ClusterError(f"{self.name} was not ready within {seconds:.0f} s; its log:\n{self._log_tail()}")
            time.sleep(0.1)
        return answer

    def log_text(self) -> str:
        """Return what the server has printed so far."""
        return os.pread(self.output.fileno(), 2**31 - 1, 0).decode(errors="replace")

    def _log_tail(self) -> str:
        return "\n".join(self.log_text().splitlines()[-30:])


@contextmanager
def folder_for(name: str) -> Iterator[Path]:
    """Yield an empty private folder, removed at the end, or by a server's supervisor if this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix=f"mlspark-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(
    name: str,
    command: Sequence[object],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[Process]:
    """Start a server and stop it at the end.

    Args:
        name: for messages and the log's file name.
        command: texts and paths; must stay in the foreground.
        folder: working directory, removed with everything in it when the server has ended.
        environment: variables beside, or instead of, those of this process.
        stop_signal: on which the server ends orderly.
    """
    log = folder / f"{name}.log"
    keep = [*script("server_supervisor.py"), str(int(stop_signal)), str(folder)]
    with log.open("w+b") as output:
        supervisor = subprocess.Popen(  # noqa: S603 (our own servers)
            [*keep, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        assert supervisor.stdin is not None
        try:
            yield Process(name, supervisor, log, output)
        finally:
            supervisor.stdin.close()
            try:
                supervisor.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.wait()


def script(name: str) -> list[str]:
    """Return the command that runs a file of this package, wherever the current folder and PYTHONPATH are."""
    return [sys.executable, "-P", str(Path(__file__).with_name(name))]  # -P: this folder hides no other module


def java() -> str:
    """Return the Java that Spark uses.

    Raises:
        ClusterError: no Java is installed.
    """
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin" if home else None)
    if program is None:
        raise ClusterError(f"no java in {f'JAVA_HOME={home}' if home else 'PATH'}; install Java 17 or 21 (make setup)")
    return program


def free_port() -> int:
    """Return a port on the loopback interface that is free now, for servers that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_port(file: Path) -> int | None:
    """Return the port that a server has written to `file`, None before that."""
    return int(file.read_text()) if file.exists() else None
