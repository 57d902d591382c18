"""Stores of MLflow that cannot be opened: one message, at once, before a job has begun."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlspark.errors import MlsparkError, StorageError, TrackingError
from mlspark.tracking import runs
from mlspark.tracking.settings import TrackingSettings

from ..registry.conftest import kept_stores


@pytest.fixture(autouse=True)
def stores() -> Iterator[None]:
    with kept_stores():
        yield


def garbage(folder: Path) -> None:
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(b"no database" * 1000)


def cut(folder: Path) -> None:
    """As a full disk leaves it: the first page says that there are more."""
    garbage(folder)
    header = b"SQLite format 3\0" + bytes.fromhex("10000101004020200000000200000100")
    (folder / "mlflow.db").write_bytes(header + bytes(3000))


def folder_in_the_way(folder: Path) -> None:
    (folder / "mlflow.db").mkdir(parents=True)


def file_in_the_way(folder: Path) -> None:
    folder.touch()


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            garbage,
            TrackingError,
            r"mlflow\.db: the store of MLflow cannot be opened \(.*\); restore it or move it away",
        ),
        (cut, TrackingError, r"mlflow\.db: the store of MLflow cannot be opened \(.*\); restore it or move it away"),
        (folder_in_the_way, TrackingError, r"mlflow\.db: is a folder, and no store of MLflow; move it away"),
        (file_in_the_way, StorageError, r"mlflow: cannot be written \(.*is a file\); make room there, give this user"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_embedded_store_that_cannot_be_opened_is_named_at_once(
    tmp_path: Path, make: Callable[[Path], None], kind: type[MlsparkError], message: str
) -> None:
    make(tmp_path / "mlflow")
    started = time.monotonic()
    with pytest.raises(kind, match=message) as refused:
        runs.connect(TrackingSettings(experiment="census"), str(tmp_path))
    assert time.monotonic() - started < 50  # MLflow would try a folder for 100 s, `connect` what may pass for 60
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "kind", "message"),
    [
        ("sqlite:////sys/no/mlflow.db", TrackingError, r"MLflow refuses to open its store: .*/sys/no"),
        ("foo://host", TrackingError, r"MLflow refuses to open its store: .*'foo://host'"),
        ("", StorageError, r"^/sys/mlspark/mlflow: cannot be written \(.*; nothing was written$"),
    ],
)
def test_place_that_takes_no_store_is_named_at_once(uri: str, kind: type[MlsparkError], message: str) -> None:
    started = time.monotonic()
    with pytest.raises(kind, match=message) as refused:
        runs.connect(TrackingSettings(experiment="census", uri=uri), "/sys/mlspark")
    assert time.monotonic() - started < 50
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "is_imported"),
    [("", True), ("postgresql+psycopg2://host/mlflow", True), ("http://127.0.0.1:5000", False), ("file:runs", False)],
)
def test_libraries_of_databases_are_imported_ahead_for_stores_that_are_databases(uri: str, is_imported: bool) -> None:
    code = (
        f"import sys; from mlspark.tracking import stores; stores.import_ahead({uri!r}); "
        "print('mlflow.store.tracking.sqlalchemy_store' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told == f"{is_imported}\n"
