"""`mlspark profile` on a table of three versions: what it prints, writes and refuses. No Spark."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake

from mlspark import storage, tables
from mlspark.commands import profile as profile_command
from mlspark.errors import ConfigError, MlsparkError, TableError
from mlspark.features import drift
from mlspark.settings.pipeline import Settings

from ..conftest import ROOT, census_settings
from ..features.test_profile import made
from ..reports.test_pictures_section import COLOURED, THUMBNAILS

CONFIG = str(ROOT / "conf" / "census.yaml")
OLD = made({"age": ("int", [1, 2, 3, 4]), "job": ("string", ["a", "a", "b", None])}, events=1)
NEW = made({"age": ("int", [3, 4, 5, 6]), "job": ("string", ["a", "a", "[c]", None])}, events=2)
NEW["splits"] = {"train": {"rows": 3, "events": 2}, "test": {"rows": 1, "events": 0}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A table of version 0 without a profile, 1 and 2 with one, and 3 by somebody else."""
    settings = census_settings(Path("unused"), tmp_path_factory.mktemp("home"))
    table = settings.table("features")
    for version, record in enumerate((None, OLD, NEW, None)):
        metadata = json.dumps({"mlspark": {"id": f"commit{version}"}} if version < 3 else {"other": 1})
        write_deltalake(
            table,
            pa.table({"x": [version]}),
            mode="overwrite",
            commit_properties=CommitProperties(custom_metadata={"userMetadata": metadata}),
        )
        if record:
            storage.write_sealed(tables.sidecar(table, f"commit{version}", "profile.json"), record)
    return settings


def run(
    settings: Settings,
    version: int | None = None,
    against: int | None = None,
    html_file: str | None = None,
    json_file: str | None = None,
) -> None:
    overrides = [f"storage.root={settings.root}", f"contract={settings.contract}"]
    profile_command.run(
        [CONFIG], overrides=overrides, version=version, against=against, html_file=html_file, json_file=json_file
    )


def test_newest_version_is_told_and_written(
    prepared: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, file = tmp_path / "profile.html", tmp_path / "profile.json"
    run(prepared, html_file=str(page), json_file=str(file))
    told = capsys.readouterr().out
    words = " ".join(told.split())
    assert "version 2: 4 rows, 50.0 % rich = yes" in words
    assert "train: 3 rows, 66.7 % rich = yes" in words
    assert f"wrote {page}" in told
    assert f"wrote {file}" in told
    for part in ("age", "3 .. 4.500 .. 6", "25.0 %", "2, a 50.0 %"):
        assert part in words
    assert json.loads(file.read_text()) == {"table": prepared.table("features"), "version": 2, "profile": NEW}
    assert "<title>census: profile of version 2</title>" in page.read_text()


def test_two_versions_are_compared(prepared: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, file = tmp_path / "drift.html", tmp_path / "drift.json"
    run(prepared, version=2, against=1, html_file=str(page), json_file=str(file))
    words = " ".join(capsys.readouterr().out.split())
    assert "version 2: 4 rows" in words
    assert "version 1: 4 rows" in words
    expected = drift.compare(OLD, NEW)
    for column in ("age", "job"):
        assert f"{expected['columns'][column]['psi']:.3f}" in words
    assert "25.0 %" in words  # unseen: [c]
    written = json.loads(file.read_text())
    assert written["comparison"] == expected
    assert written["against"] == {"version": 1, "profile": OLD}
    assert "<title>census: version 2 against 1</title>" in page.read_text()
    assert "[c]" in page.read_text()


def test_pictures_are_told_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = census_settings(Path("unused"), tmp_path)
    table, page = settings.table("features"), tmp_path / "profile.html"
    said = CommitProperties(custom_metadata={"userMetadata": json.dumps({"mlspark": {"id": "one"}})})
    write_deltalake(table, pa.table({"x": [1]}), commit_properties=said)
    storage.write_sealed(tables.sidecar(table, "one", "profile.json"), COLOURED)
    with pytest.raises(TableError, match=r"pictures\.json: missing, though a version of the table needs it"):
        run(settings)
    thumbnails = {"format": 1, "thumbnails": THUMBNAILS}
    storage.write_sealed(tables.sidecar(table, "one", "pictures.json"), thumbnails)
    run(settings, html_file=str(page))
    words = " ".join(capsys.readouterr().out.split())
    assert "photo: 3 pictures; png 66.7 %, jpeg 33.3 %; 28 x 28 to 640 x 320" in words
    assert "photo.brightness" in words
    assert "data:image/png;base64," in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"version": 7}, TableError, "no version 7 that prepare wrote; there are 2, 1, 0"),
        ({"version": 3}, TableError, "no version 3 that prepare wrote; there are 2, 1, 0"),
        ({"against": 8}, TableError, "no version 8 that prepare wrote; there are 2, 1, 0"),
        ({"version": 0}, TableError, "profile.json: missing, though a version of the table needs it; "),
        ({"html_file": "/no/such/page.html"}, ConfigError, "--html /no/such/page.html: the folder does not exist"),
        ({"json_file": "/no/such/a.json"}, ConfigError, "--json /no/such/a.json: the folder does not exist"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(
    prepared: Settings, arguments: dict[str, int | str], error: type[MlsparkError], message: str
) -> None:
    with pytest.raises(error) as refused:
        run(prepared, **arguments)  # type: ignore[arg-type]
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_table_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no feature table; run jobs/prepare\.py with the same config first"):
        run(census_settings(Path("unused"), tmp_path))
