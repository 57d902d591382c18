"""Sources as they are named on a command line."""

from pathlib import Path
from typing import Any

import pytest

from mlspark.commands import source_arguments
from mlspark.errors import ConfigError


def test_settings_within_a_setting_are_given_by_their_names() -> None:
    options = ["columns.image=train-images-idx3-ubyte.gz", "columns.label=train-labels-idx1-ubyte.gz"]
    settings: Any = source_arguments.settings("mnist", "idx", options)
    assert settings.columns == {"image": "train-images-idx3-ubyte.gz", "label": "train-labels-idx1-ubyte.gz"}
    settings = source_arguments.settings("in", "images", ["manifest.path=m.csv", "manifest.column=file", "max_bytes=9"])
    assert (settings.manifest.path, settings.manifest.column, settings.max_bytes) == ("m.csv", "file", 9)
    settings = source_arguments.settings("a.tar", "archives", ["webdataset=true", "pattern=(?P<part>[a-z]+)=1"])
    assert (settings.webdataset, settings.pattern) == (True, "(?P<part>[a-z]+)=1")


@pytest.mark.parametrize(
    "options", [["columns=a", "columns.image=b"], ["columns.image=b", "columns=a"], ["columns.a=b"] * 2]
)
def test_setting_that_is_given_twice_is_refused(options: list[str]) -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        source_arguments.settings("mnist", "idx", options)


@pytest.mark.parametrize(
    ("file", "source", "kind"),
    [
        ("cat/1.jpg", ".", "images"),
        ("1.PNG", ".", "images"),
        ("0001.tar", ".", "archives"),
        ("0001.tar.gz", "0001.tar.gz", "archives"),
        ("0001.tgz", "0001.tgz", "archives"),
        ("1.zip", "*.zip", "archives"),
    ],
)
def test_kind_is_known_by_the_names_of_pictures_and_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, source: str, kind: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert source_arguments.guess_kind(source)[0] == kind
