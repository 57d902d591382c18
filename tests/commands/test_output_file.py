"""Files that a user asked for: refused before the work where that can be seen, else named in one message."""

from pathlib import Path

import pytest

from mlspark.commands import output_file
from mlspark.errors import ConfigError


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    output_file.check("--json", None)
    output_file.check("--json", str(tmp_path / "new.json"))
    with pytest.raises(ConfigError, match=r"^--json .*/no/new\.json: the folder does not exist$"):
        output_file.check("--json", str(tmp_path / "no" / "new.json"))
    with pytest.raises(
        ConfigError, match=rf"^--out {tmp_path}: cannot be written; give a file in a folder that is yours"
    ):
        output_file.check("--out", str(tmp_path))


@pytest.mark.parametrize(
    ("file", "reason"), [("/dev/full", "No space left on device"), ("/sys/new.json", "Permission denied|not permitted")]
)
def test_write_that_fails_is_one_message(file: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--json {file}: cannot be written \(.*({reason}).*\); the work stands$"):
        output_file.write("--json", file, "x" * 100_000, what_stands="the work stands")
