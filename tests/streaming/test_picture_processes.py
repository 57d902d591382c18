"""Pictures that are decoded in processes: the pixels of threads, in order; processes that end, whoever ends first."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlspark.errors import DatasetError
from mlspark.pictures import processes
from mlspark.pictures.augment import Crop, Flip, RandAugment
from mlspark.pictures.processes import Fillers
from mlspark.streaming.pictures import Picture
from tests.conftest import is_alive, wait_until
from tests.streaming.test_pictures import SIZE, assert_equal, opened, photo, shown, write

SIMPLE = (Crop(padding=2), Flip())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes start with the second chunk of pictures."""
    monkeypatch.setattr(processes, "_SECONDS_IN_THREADS", 0.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("photos") / "a.parquet", [photo(number) for number in range(61)])


@pytest.fixture(scope="module")
def started(table: str) -> Iterator[Fillers]:
    """Keep processes that have started, for all streams of three workers."""
    with opened(table, workers=3, batch_size=4) as stream:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processes, "_SECONDS_IN_THREADS", 0.0)
            waited_for(stream)
        yield stream._pictures.fillers


def waited_for(stream: Any) -> Fillers:
    """Return what fills a stream's pictures in, once processes do."""
    deadline = time.monotonic() + 120
    fillers: Fillers = stream._pictures.fillers
    while not (fillers._processes and fillers._processes.is_ready):
        assert time.monotonic() < deadline
        shown(stream)
        time.sleep(0.05)
    return fillers


def of_processes(process_id: int) -> list[int]:
    """Return the ids of the processes that a process started."""
    return [int(each) for each in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the pictures of each chunk that goes to a process."""
    counts: list[int] = []
    fill = processes._Processes.fill

    def counting(self: Any, filling: Any, pictures: Any, values: Any, draws: Any) -> None:
        counts.append(len(pictures))
        fill(self, filling, pictures, values, draws)

    monkeypatch.setattr(processes._Processes, "fill", counting)
    return counts


def test_pictures_of_processes_are_those_of_threads(
    table: str, started: Fillers, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted(monkeypatch)
    with opened(table, workers=1) as stream:
        assert stream._pictures.fillers is not started
        stream._pictures.fillers._is_refused = True
        in_threads = shown(stream, epochs=2)
    assert not counts
    together: Any = {}
    for rank in range(2):
        with opened(table, rank=rank, world_size=2, workers=3) as stream:
            assert stream._pictures.fillers is started
            together |= shown(stream, epochs=2)
    assert sum(counts) >= 2 * 61
    assert_equal(together, in_threads)


def test_pixels_whose_colours_change_go_to_processes_and_others_do_not(
    tmp_path: Path, started: Fillers, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(0)
    pixels = [chance.integers(0, 256, 3 * SIZE[0] * SIZE[1], dtype=np.uint8).tobytes() for _ in range(40)]
    path, counts = write(tmp_path / "pixels.parquet", pixels), counted(monkeypatch)
    for augment, is_in_processes in ((SIMPLE, False), ((Flip(), RandAugment()), True)):
        images = {"photo": Picture(size=SIZE, store="pixels", augment=augment)}
        with opened(path, images=images, workers=3, batch_size=4) as stream:
            first = shown(stream)
            stream.go_to(0)
            counts.clear()
            assert_equal(shown(stream), first)
            assert sum(counts) == (40 if is_in_processes else 0)


def test_what_is_too_large_for_a_slot_stays_in_threads(
    table: str, started: Fillers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(table, workers=3) as stream:
        expected, counts = shown(stream), counted(monkeypatch)
        stream.go_to(0)
        monkeypatch.setattr(processes, "AREA_BYTES", 2**16 + 100)
        assert_equal(shown(stream), expected)
    assert not counts


def test_a_broken_picture_is_named_by_file_row_group_and_row(tmp_path: Path, started: Fillers) -> None:
    pictures = [photo(number) for number in range(20)]
    path = write(tmp_path / "good.parquet", pictures)
    with opened(path, workers=3, batch_size=4) as stream:
        shown(stream)
    pictures[13] = pictures[13][:150]
    path = write(tmp_path / "broken.parquet", pictures)
    named = re.escape(f"{path}: row group 1: row 5: column photo: jpeg: ")
    with opened(path, workers=3) as stream, pytest.raises(DatasetError, match=named) as error:
        list(stream)
    assert len(str(error.value).splitlines()) == 1


def test_processes_end_with_the_last_stream_of_theirs(table: str) -> None:
    with opened(table, SIMPLE, workers=2, batch_size=4) as one:
        fillers = waited_for(one)
        assert fillers._processes is not None
        process = fillers._processes._process.pid
        mine = [process, *of_processes(process)]
        assert len(mine) == 3
        with opened(table, SIMPLE, workers=2, batch_size=4) as other:
            assert other._pictures.fillers is fillers
        assert all(map(is_alive, mine))
        shown(one)
    del one, other, fillers
    wait_until(lambda: not any(map(is_alive, mine)))


def test_a_stream_may_be_closed_while_processes_start(table: str, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(table, workers=7) as stream:
        shown(stream, epochs=3)
        started = stream._pictures.fillers._processes
        process = started._process.pid  # which most probably imports torchvision still
    del stream, started
    wait_until(lambda: not is_alive(process))
    assert capfd.readouterr().err == ""


def test_a_process_that_is_killed_is_told_and_the_stream_can_go_on(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(table, SIMPLE, workers=5, batch_size=4) as stream:
        fillers = waited_for(stream)
        assert fillers._processes is not None
        child = of_processes(fillers._processes._process.pid)[0]
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: fillers._processes._process.poll() is not None)  # type: ignore[union-attr]
        with pytest.raises(
            DatasetError,
            match=r"row group \d+: row \d+: column photo: the process that .* was killed by signal 9; if memory",
        ):
            shown(stream)
        stream.go_to(0)
        assert len(shown(stream)) == 61
        waited_for(stream)


@pytest.mark.parametrize("how", ["fails", "cannot"])
def test_where_processes_do_not_start_threads_go_on_and_it_is_said_once(
    table: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    if how == "fails":
        monkeypatch.setattr(sys, "executable", "/bin/false")
    else:
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: os.stat("/no/such/program"))
    with opened(table, SIMPLE, workers=4, batch_size=4) as stream:
        wait_until(lambda: len(shown(stream)) == 61 and bool(caplog.records))
        shown(stream)
    (record,) = caplog.records
    assert "pictures are decoded in threads only" in record.getMessage()


_ENDLESS = """
import sys, time
import mlspark.streaming
from mlspark.pictures import processes
from mlspark.pictures.augment import Crop, Flip
from mlspark.streaming.pictures import Picture
processes._SECONDS_IN_THREADS = 0
images = {"photo": Picture(size=16, augment=(Crop(padding=2), Flip()))}
stream = mlspark.streaming.open(sys.argv[1], images=images, batch_size=8)
while True:
    for _ in stream: pass
    found = stream._pictures.fillers._processes
    if found and found.is_ready: print(found._process.pid, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them_however_it_ends(table: str, how: signal.Signals) -> None:
    command = [sys.executable, "-c", _ENDLESS, table]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as script:
        assert script.stdout is not None
        process = int(script.stdout.readline())
        mine = [process, *of_processes(process)]
        assert len(mine) == 3
        script.send_signal(how)
        wait_until(lambda: not any(map(is_alive, mine)))


def test_a_table_that_is_soon_done_starts_no_process(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with opened(table, SIMPLE, workers=6) as stream:
        shown(stream, epochs=2)
        assert stream._pictures.fillers._processes is None
