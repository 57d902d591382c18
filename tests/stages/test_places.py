"""What a stage writes and reads beside its rows: damaged files, places that take no files, rights of raw rows."""

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mlspark import storage, tables
from mlspark.errors import StorageError, TableError
from mlspark.features import prepared
from mlspark.settings.pipeline import Settings
from mlspark.stages import places
from mlspark.stages.prepare import prepare
from mlspark.stages.train import train

from ..conftest import ROOT, census_settings


@pytest.fixture(scope="module")
def table(spark: SparkSession, small_census: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A prepared census; its rights as with umask 022."""
    settings = census_settings(small_census, tmp_path_factory.mktemp("home"))
    before = os.umask(0o022)
    try:
        prepare(spark, settings)
    finally:
        os.umask(before)
    return settings


@contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    kept = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(kept)


def sidecar(settings: Settings, name: str) -> Path:
    features = settings.table("features")
    newest = tables.latest(features)
    assert newest is not None
    return Path(tables.sidecar(features, newest.metadata["id"], name))


@pytest.mark.parametrize("name", ["encoder.json", "contract.json", "task.json"])
def test_changed_file_beside_the_table_is_refused_by_name(table: Settings, name: str) -> None:
    file = sidecar(table, name)
    whole = file.read_bytes()
    other = json.loads(whole)
    other[sorted(other)[0]] = "another"
    for content in (whole[:-20], b"", b"\xff", json.dumps(other).encode(), whole.replace(b"age", b"agf")):
        if content == whole:
            continue
        with changed(file, content), pytest.raises(TableError) as refused:
            prepared.latest(table.table("features"))
        assert str(refused.value).startswith(f"{file}: ")
        assert "prepare the table anew" in str(refused.value)
        assert "\n" not in str(refused.value)
    prepared.latest(table.table("features"))


@pytest.mark.parametrize("name", ["encoder", "contract"])
def test_whole_file_of_another_table_is_refused_by_name(table: Settings, name: str) -> None:
    file = sidecar(table, f"{name}.json")
    other = storage.read_sealed(str(file))
    other |= {"pipeline": "other"} if name == "encoder" else {"name": "other"}
    with changed(file, b""):
        storage.write_sealed(str(file), other)
        with pytest.raises(
            TableError, match=rf"{name}\.json: is not the {name} of version 0; restore the file or prepare"
        ):
            prepared.latest(table.table("features"))


@pytest.mark.parametrize("kind", ["features", "quarantine"])
def test_damaged_log_stops_the_stage_before_its_work(spark: SparkSession, table: Settings, kind: str) -> None:
    file = Path(table.table(kind), "_delta_log", f"{0:020d}.json")
    others = table.model_copy(update={"split": table.split.model_copy(update={"validation_share": 0.2})})
    with (
        changed(file, b"{"),
        pytest.raises(TableError, match=r"0\.json: the table's log cannot be read \(.*\); restore"),
    ):
        prepare(spark, others)


def test_quarantine_is_its_owner_s_alone_and_features_are_not(table: Settings) -> None:
    assert stat.S_IMODE(Path(table.table("quarantine")).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(table.table("features")).stat().st_mode) & 0o055


def test_quarantine_in_a_folder_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"
    folder.mkdir()
    folder.chmod(0o750)
    storage.make_private(str(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    storage.make_private(str(tmp_path / "a" / "b"))
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o077 == 0 for name in ("a", "a/b")] == [False, True]


def test_place_that_takes_no_file_is_found_before_the_work(small_census: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "home").mkdir()
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir(mode=0o555)
    # Root may write to a folder of mode 0555, but nobody to /sys.
    of_others = [] if os.geteuid() == 0 else [forbidden]
    for home in (Path("/sys/mlspark"), tmp_path / "file" / "home", *of_others):
        settings = census_settings(small_census, home)
        with (
            pytest.raises(
                StorageError, match=rf"^{home}/tables/census_features: cannot be written \(.*nothing was written$"
            ),
            places.writing(settings, ("features",)),
        ):
            raise AssertionError("the work has begun")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most[1]))
    try:
        settings = census_settings(small_census, tmp_path / "home")
        with pytest.raises(StorageError, match=r"written \(.*File too large"), places.writing(settings, ("features",)):
            raise AssertionError("the work has begun")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("in_the_way", ["runs", "runs/unfinished"])
def test_place_of_trainings_is_tried_before_ranks_are_started(
    spark: SparkSession, table: Settings, in_the_way: str
) -> None:
    file = Path(table.root, in_the_way)
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    try:
        with pytest.raises(
            StorageError, match=rf"^{table.root}/runs/unfinished: cannot be written \(.*is a file"
        ) as refused:
            train(spark, table)
    finally:
        file.unlink()
    assert "\n" not in str(refused.value)


def test_write_that_fails_in_the_middle_is_one_message(spark: SparkSession, small_census: Path, tmp_path: Path) -> None:
    settings = census_settings(small_census, tmp_path)
    (tmp_path / "file").touch()
    failed = pytest.raises(StorageError, match=r": a write failed \(.*\); make room or give the rights")
    with failed as refused, places.writing(settings, ("features",)):
        spark.range(1).write.parquet("file:///sys/mlspark")
    assert "\n" not in str(refused.value)
    failed = pytest.raises(StorageError, match=r": a write failed \(.*No space left on device")
    with failed, places.writing(settings, ("features",)), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    with pytest.raises(ZeroDivisionError), places.writing(settings, ("features",)):
        _ = 1 / 0


@pytest.mark.slow
def test_job_on_a_full_disk_says_so_in_one_message(small_census: Path, tmp_path: Path) -> None:
    """A disk of 112 KiB for the tables: room for the trial, not for the work. In a namespace, which needs no root."""
    home = tmp_path / "home"
    home.mkdir()
    mount = f"mount -t tmpfs -o size=112k tmpfs {home}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces of a user's own here")
    settings = [f"storage.root={home}", f"sources.root={small_census}", f"contract={ROOT / 'schemas' / 'census.json'}"]
    command = [sys.executable, "jobs/prepare.py", "--config=conf/census.yaml", *(f"--set={each}" for each in settings)]
    script = f"{mount} && {' '.join(command)}; status=$?; ls {home}/tables/*/_delta_log/*.json; exit $status"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "prepare: " in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\tat " not in done.stderr
    assert "census_features/_delta_log" not in done.stdout
