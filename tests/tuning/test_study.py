"""The journal of a study: what a full disk or a stranger leaves of it."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mlspark.errors import StorageError
from mlspark.tuning import study as studies

from .conftest import options_of, tuning_settings

IDENTITY = {"metric": "log_loss"}


def told(home: Path, value: float) -> None:
    """Add a trial to the study and end it."""
    with studies.open_storage(tuning_settings(home), options_of(1)) as store:
        study = studies.open_study(store, options_of(1), IDENTITY)
        study.tell(study.ask(), value)


def values(home: Path) -> list[float | None]:
    """Of the trials that have ended; those that have not are to be run again."""
    with studies.open_storage(tuning_settings(home), options_of(1)) as store:
        study = studies.open_study(store, options_of(1), IDENTITY)
        studies.requeue_interrupted(study)
        return [trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    told(tmp_path, 1.0)
    told(tmp_path, 2.0)
    return tmp_path / "tune" / "small.journal"


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_study_goes_on_after_a_line_that_was_not_written_to_its_end(tmp_path: Path, journal: Path, cut: int) -> None:
    """Optuna would write the next one behind it, and never read the journal again."""
    whole = journal.read_bytes()
    assert len(whole.splitlines(keepends=True)[-1]) > cut
    journal.write_bytes(whole[:-cut])
    assert values(tmp_path) == [1.0]
    told(tmp_path, 3.0)
    assert values(tmp_path) == [1.0, 3.0]


@pytest.mark.parametrize("damage", [b"\x00\xff\n", b"[1]\n", b'{"op_code":0}\n', b"{\n{}\n"])
def test_damaged_journal_is_one_message_that_names_the_file(tmp_path: Path, journal: Path, damage: bytes) -> None:
    journal.write_bytes(damage + journal.read_bytes())
    with pytest.raises(StorageError) as refused:
        values(tmp_path)
    assert str(refused.value).startswith(f"{journal}: the journal of a study cannot be read (")
    assert str(refused.value).endswith("); restore the file, or give another --study")
    assert "\n" not in str(refused.value)


def test_place_that_takes_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "tune").touch()
    with pytest.raises(StorageError, match=rf"^{tmp_path}/tune: cannot be written \(.*is a file.*nothing was written$"):
        values(tmp_path)
