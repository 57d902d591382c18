"""Of several drivers that begin the same training one trains, whatever became of those before."""

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.stages import training_mark
from mlspark.stages.training_mark import Holder, abandoned, held

IS_TRAINING = r"is being trained by process \d+ on \S+; wait for it, or set training\.recovery\.resume=false"


def holder(folder: Path) -> Holder:
    newest = training_mark._newest(str(folder), "census-0")
    assert newest is not None
    return newest[1]


def put(folder: Path, number: int, of: Holder) -> None:
    storage.write_json(training_mark._uri(str(folder), "census-0", number), dataclasses.asdict(of))


def test_one_holds_it_and_the_other_is_told_by_whom(tmp_path: Path) -> None:
    with held(str(tmp_path), "census-0") as mark:
        mark.set_run("abc")
        message = f"run abc of the same settings and table version {IS_TRAINING}"
        with pytest.raises(ConfigError, match=message), held(str(tmp_path), "census-0"):
            pass
        with held(str(tmp_path), "census-1"):  # another training
            pass
        mark.check()
        mark.finish()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("census-0")]


def test_of_many_at_once_one_trains(tmp_path: Path) -> None:
    begin, may_end, results = threading.Barrier(8), threading.Event(), []

    def train() -> None:
        begin.wait()
        try:
            with held(str(tmp_path), "census-0"):
                results.append("trains")
                may_end.wait(30.0)
        except ConfigError:
            results.append("told")
            if results.count("told") == 7:
                may_end.set()

    threads = [threading.Thread(target=train) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["told"] * 7 + ["trains"]


def test_training_that_failed_goes_on_with_its_run(tmp_path: Path) -> None:
    def fail() -> None:
        with held(str(tmp_path), "census-0") as mark:
            assert mark.run_id == ""
            mark.set_run("abc")
            raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        fail()
    assert holder(tmp_path).is_released
    with held(str(tmp_path), "census-0") as mark:
        assert mark.run_id == "abc"
        assert list(abandoned(str(tmp_path), "census-")) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_mark_of_a_killed_driver_is_taken_over_and_its_run_is_known(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from mlspark.stages.training_mark import held\n"
        f"with held({str(tmp_path)!r}, 'census-0') as mark:\n"
        "    mark.set_run('abc')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert not holder(tmp_path).is_released
    assert list(abandoned(str(tmp_path), "census-")) == ["abc"]
    assert list(abandoned(str(tmp_path), "other-")) == []
    with held(str(tmp_path), "census-0") as mark:
        assert mark.run_id == "abc"


def test_number_of_a_dead_process_that_another_one_has_is_no_sign_of_life(tmp_path: Path) -> None:
    with held(str(tmp_path), "census-0") as mark:
        other = dataclasses.replace(mark.holder, process=os.getppid(), process_start=1.0, run_id="abc")
    put(tmp_path, 7, other)
    with held(str(tmp_path), "census-0") as mark:
        assert mark.run_id == "abc"


@pytest.mark.parametrize("is_alive", [True, False])
def test_driver_on_another_machine_is_known_by_its_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    monkeypatch.setattr(training_mark, "WATCH_SECONDS", 0.5)
    there = Holder("abc", "elsewhere 1 pid:[2]", "elsewhere", 17, 1.0, "token")
    put(tmp_path, 3, there)
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(0.05):
            put(tmp_path, 3, dataclasses.replace(there, beat=holder(tmp_path).beat + 1))

    thread = threading.Thread(target=beat)
    if is_alive:
        thread.start()
        try:
            with pytest.raises(ConfigError, match=IS_TRAINING), held(str(tmp_path), "census-0"):
                pass
        finally:
            is_over.set()
            thread.join()
    else:
        with held(str(tmp_path), "census-0") as mark:
            assert mark.run_id == "abc"


def test_driver_that_was_taken_for_dead_registers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_mark, "BEAT_SECONDS", 0.05)
    with held(str(tmp_path), "census-0") as mark:
        put(tmp_path, 2, Holder("abc", "elsewhere", "elsewhere", 17, 1.0, "token"))
        with pytest.raises(ConfigError, match="taken over by another driver"):
            mark.check()
    assert holder(tmp_path).token == "token"


def test_file_that_is_no_mark_is_named(tmp_path: Path) -> None:
    (tmp_path / "census-0.000001.json").write_text("[1]")
    with (
        pytest.raises(ConfigError, match=r"census-0\.000001\.json: no mark of a training"),
        held(str(tmp_path), "census-0"),
    ):
        pass
