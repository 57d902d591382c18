"""The mark that says who trains: of several drivers that begin the same training, one gets it. Driver.

A mark is a small file, numbered: the highest number says who trains, and which run. The next number is taken by creating
its file, which of several drivers one can (`storage.create`; on object stores the first commit of a Delta table, which is
a conditional put). It is taken when there is no number yet, when the one before was released, or when its driver is dead.
"""

import contextlib
import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs

from mlspark import storage
from mlspark.errors import ConfigError

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""Seconds between two signs of life of a driver that trains, for drivers on other machines."""
WATCH_SECONDS = 3 * BEAT_SECONDS
"""Seconds without a sign of life after which a driver on another machine is taken to be dead."""
_held: set[str] = set()
"""Tokens of the marks that this process holds."""


@dataclass(frozen=True)
class Holder:
    """What is in a mark."""

    run_id: str = ""
    """The MLflow run that is trained; empty: not begun yet."""
    machine: str = ""
    """What has the same processes: host, start of its system, container."""
    host: str = ""
    process: int = 0
    process_start: float = 0.0
    """Start of the process: its number may be another one's later."""
    token: str = ""
    """Drawn anew for each mark: a process may train more than once."""
    is_released: bool = False
    """Whether its driver has ended training, without having finished it."""
    beat: int = 0
    """Number of signs of life."""

    def is_dead(self) -> bool | None:
        """Return whether the driver trains no more; None: not to be known from this machine."""
        if self.is_released or not self.token:
            return True
        if self.machine != _machine():
            return None
        if self.process == os.getpid():
            return self.token not in _held
        return not (psutil.pid_exists(self.process) and _start_of(self.process) == self.process_start)


class Mark:
    """A mark that this process holds."""

    def __init__(self, folder: str, name: str, number: int, holder: Holder) -> None:
        self._folder, self._name, self._number = folder, name, number
        self.holder = holder
        self._lock, self._is_over = threading.Lock(), threading.Event()
        self._is_lost = False

    @property
    def run_id(self) -> str:
        """Run that the training before this one began and did not finish; empty: there is none."""
        return self.holder.run_id

    def set_run(self, run_id: str) -> None:
        """Note which run is trained."""
        self._write(replace(self.holder, run_id=run_id))

    def check(self) -> None:
        """Return when this process still holds the mark.

        Raises:
            ConfigError: another one has taken it, because this one gave no sign of life for so long.
        """
        if self._is_lost or _numbers(self._folder, self._name)[-1:] != [self._number]:
            raise ConfigError(
                f"run {self.run_id} was taken over by another driver, because this one gave no sign of life for "
                f"{WATCH_SECONDS:.0f} s; nothing was registered here"
            )

    def finish(self) -> None:
        """Remove the mark: the training is finished."""
        for number in _numbers(self._folder, self._name):
            _delete(_uri(self._folder, self._name, number))

    def _release(self) -> None:
        if _numbers(self._folder, self._name)[-1:] == [self._number]:
            self._write(replace(self.holder, is_released=True))

    def _write(self, holder: Holder) -> None:
        with self._lock:
            self.holder = holder
            storage.write_json(_uri(self._folder, self._name, self._number), asdict(holder))

    def _beat(self) -> None:
        while not self._is_over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next one may be written again
                if _numbers(self._folder, self._name)[-1:] != [self._number]:
                    self._is_lost = True
                    return
                self._write(replace(self.holder, beat=self.holder.beat + 1))


def _refusal(holder: Holder) -> str:
    run = f"run {holder.run_id} of the same settings and table version" if holder.run_id else "the same training"
    return (
        f"{run} is being trained by process {holder.process} on {holder.host}; wait for it, or set "
        f"training.recovery.resume=false to train another one"
    )


@contextlib.contextmanager
def held(folder: str, name: str, *, refusal: Callable[[Holder], str] = _refusal) -> Iterator[Mark]:
    """Take mark `name` in `folder`, and hold it meanwhile; released at the end, unless it is finished.

    Args:
        folder: of the marks.
        name: what is trained, or done else by one driver at a time.
        refusal: what is said where another driver holds it.

    Raises:
        ConfigError: another driver holds it; says which process.
    """
    mark = _take(folder, name, refusal)
    beats = threading.Thread(target=mark._beat, name="mark", daemon=True)
    beats.start()
    try:
        yield mark
    finally:
        mark._is_over.set()
        beats.join()
        with contextlib.suppress(OSError):  # it is seen to be dead anyway
            mark._release()
        _held.discard(mark.holder.token)


def abandoned(folder: str, prefix: str) -> Iterator[str]:
    """Yield the runs of those marks whose names begin with `prefix` and whose drivers have died on this machine."""
    for name in sorted({_stem(uri) for uri in storage.list_files(folder)}):
        newest = _newest(folder, name) if name.startswith(prefix) else None
        if newest is not None and newest[1].run_id and newest[1].is_dead():
            yield newest[1].run_id


def _take(folder: str, name: str, refusal: Callable[[Holder], str]) -> Mark:
    while True:
        newest = _newest(folder, name)
        number, before = newest if newest is not None else (0, Holder(is_released=True))
        if not _is_dead(folder, name, number, before):
            raise ConfigError(refusal(before))
        holder = Holder(
            before.run_id, _machine(), platform.node(), os.getpid(), _start_of(os.getpid()), uuid.uuid4().hex
        )
        _held.add(holder.token)
        if _create(_uri(folder, name, number + 1), json.dumps(asdict(holder)).encode()):
            for earlier in range(max(0, number - 3), number + 1):
                _delete(_uri(folder, name, earlier))
            return Mark(folder, name, number + 1, holder)
        _held.discard(holder.token)  # another one was first: it is alive


def _is_dead(folder: str, name: str, number: int, holder: Holder) -> bool:
    """Return whether a mark's driver trains no more; of another machine, by its signs of life for a while."""
    is_dead = holder.is_dead()
    if is_dead is not None:
        return is_dead
    logger.info(
        "run %s was begun on %s: looking for signs of life for %.0f s", holder.run_id, holder.host, WATCH_SECONDS
    )
    deadline = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, WATCH_SECONDS / 10))
        newest = _newest(folder, name)
        if newest is None or newest[0] != number or newest[1].is_released:
            return True  # finished, or another one has it: the next look says which
        if newest[1].beat != holder.beat:
            return False
    return True


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    container = "/proc/self/ns/pid"
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [boot.read_text(encoding="ascii").strip(), os.readlink(container)]
    return " ".join(parts)


def _start_of(process: int) -> float:
    """Return a number that two processes of one number do not share: on Linux not moved when the clock is set."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return float(fields[19])
    except OSError:
        with contextlib.suppress(psutil.Error):
            return float(psutil.Process(process).create_time())
    return 0.0


def _uri(folder: str, name: str, number: int) -> str:
    return storage.join(folder, f"{name}.{number:06d}.json")


def _stem(uri: str) -> str:
    return uri.rpartition("/")[2].removesuffix(".json").rpartition(".")[0]


def _numbers(folder: str, name: str) -> list[int]:
    """Return the numbers of the marks of this name, ascending."""
    uris = (uri for uri in [*storage.list_files(folder), *storage.list_folders(folder)])
    names = {uri.rpartition("/")[2].removesuffix(_CLAIM).removesuffix(".json") for uri in uris}
    numbers = (found.rpartition(".") for found in names)
    return sorted(int(number) for stem, _, number in numbers if stem == name and number.isdigit())


def _newest(folder: str, name: str) -> tuple[int, Holder] | None:
    """Return the mark in force and its number, None without one."""
    deadline = time.monotonic() + BEAT_SECONDS
    while True:
        numbers = _numbers(folder, name)
        if not numbers:
            return None
        try:
            return numbers[-1], Holder(**storage.read_json(_uri(folder, name, numbers[-1])))
        except FileNotFoundError:  # removed just now; or claimed, and not written yet
            if time.monotonic() > deadline:
                return numbers[-1], Holder(is_released=True)  # its driver died in between
            time.sleep(0.1)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{_uri(folder, name, numbers[-1])}: no mark of a training ({error}); delete it if nothing trains"
            ) from None


_CLAIM = ".claim"


def _create(uri: str, content: bytes) -> bool:
    """Write a new mark and return True; False where there is one already."""
    if not isinstance(storage.filesystem(uri)[0], fs.S3FileSystem):
        return storage.create(uri, content)
    claim, token = uri + _CLAIM, uuid.uuid4().hex
    try:
        DeltaTable.create(
            storage.rust_uri(claim),
            pa.schema([pa.field("mark", pa.string())]),
            mode="error",
            storage_options={"conditional_put": "etag"},
            commit_properties=CommitProperties(custom_metadata={"mark": token}),
        )
    except DeltaError:
        if not DeltaTable.is_deltatable(storage.rust_uri(claim)):
            raise
    # Of several that create a table at the same time one writes the first commit, and delta-rs has the others add another
    # one to it, without an error, in mode "error", too.
    try:
        first = storage.read_bytes(storage.join(claim, "_delta_log", f"{0:020d}.json"))
    except FileNotFoundError:  # it was another's, who has finished and removed it
        return False
    if token.encode() not in first:
        return False
    storage.write_bytes(uri, content)
    return True


def _delete(uri: str) -> None:
    with contextlib.suppress(FileNotFoundError, OSError):
        storage.delete(uri)
    if isinstance(storage.filesystem(uri)[0], fs.S3FileSystem):
        with contextlib.suppress(FileNotFoundError, OSError):
            storage.delete_folder(uri + _CLAIM)
