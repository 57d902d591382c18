"""What is kept of a finished training, and what is said of it where it is not what was kept."""

from pathlib import Path
from typing import Any

import pytest

from mlspark.errors import DamagedFile
from mlspark.stages import training_record

from ..conftest import census_settings


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_damaged_report_of_a_finished_training_is_named(tmp_path: Path, damage: bytes) -> None:
    settings, client = census_settings(Path("unused"), tmp_path), None
    report = {"model_name": "census", "model_version": 3, "run_id": "abc", "metrics": {"test": {"accuracy": 0.5}}}
    training_record.keep(settings, "census-0", report)
    [file] = (tmp_path / "runs" / "finished").iterdir()
    whole = file.read_bytes()

    def finished(content: bytes) -> Any:
        file.write_bytes(content)
        return training_record.finished(client, settings, "census-0")  # type: ignore[arg-type]

    for content in (damage, whole[:-20], whole.replace(b"0.5", b"0.9")):
        with pytest.raises(DamagedFile, match=rf"^{file}: .*; delete the file to train again$"):
            finished(content)
    with pytest.raises(AttributeError):  # nothing is wrong with it: MLflow is asked
        finished(whole)
