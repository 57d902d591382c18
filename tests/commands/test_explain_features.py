"""`mlspark explain-features`: each number of a row, and where it comes from."""

import json
import re
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mlspark.commands import explain_features as explain_command
from mlspark.errors import ConfigError, ContractError, MlsparkError
from mlspark.stages.prepare import prepare

from ..conftest import ROOT, census_settings

ROW = "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, United-States"


@pytest.fixture(scope="module")
def pipeline(spark: SparkSession, small_census: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("explained")
    settings = census_settings(small_census, folder / "home")
    prepare(spark, settings)
    file = folder / "census.yaml"
    file.write_text(settings.to_yaml())
    return str(file)


def test_every_number_is_traced_to_its_column(
    pipeline: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # of the terminal: this is none
    written = tmp_path / "explained.json"
    explain_command.run(pipeline, ROW, overrides=[], version=None, json_file=str(written))
    explained = {each["output"]: each for each in json.loads(written.read_text())}
    assert len(explained) == 14
    assert explained["age"]["inputs"] == {"age": 39}
    assert explained["age"]["position"] == "dense[0]"
    assert explained["occupation"]["number"] == 0  # missing
    assert explained["sex"]["number"] == 3  # Male, after Female
    assert "log(1 + capital_gain), minus " in explained["capital_gain"]["meaning"]
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) > 100
    workclass, country = (line for line in shown.splitlines() if line.startswith(("workclass", "native_country")))
    assert re.search(r"State-gov +ids\[0\] +\d+ +\d+ = State-gov$", workclass.rstrip())
    assert "native_country=United-States" in country
    assert explained["sex"]["meaning"] == "3 = Male"
    assert explained["occupation"]["meaning"] == "0 = missing"
    assert "occupation=missing" in shown


def test_json_csv_with_label_and_file_say_the_same(pipeline: str, tmp_path: Path) -> None:
    names = [column["name"] for column in json.loads((ROOT / "schemas" / "census.json").read_text())["columns"]]
    fields = [None if field == "?" else field for field in ROW.split(", ")]
    values = {
        name: int(field) if field and field.isdigit() else field for name, field in zip(names, fields, strict=False)
    }
    (tmp_path / "row.json").write_text(json.dumps(values))
    results = []
    for number, row in enumerate((ROW, f"{ROW}, <=50K", json.dumps(values), f"@{tmp_path / 'row.json'}")):
        written = tmp_path / f"{number}.json"
        explain_command.run(pipeline, row, overrides=[], version=0, json_file=str(written))
        results.append(written.read_text())
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    ("row", "exception", "message"),
    [
        ("1, 2", ConfigError, r"ROW: 2 fields, expected 15 \(age, workclass, "),
        ("{", ConfigError, "ROW: not a JSON object"),
        ("@absent.json", ConfigError, "ROW @absent.json: cannot be read"),
        (ROW.replace("39", "old"), ContractError, "age.type: 'old', expected int"),
        (ROW.replace("39", "390"), ContractError, "age.max: row 0 has 390"),
        ("{}", ContractError, "age.null: row 0 has None"),
    ],
)
def test_rows_that_are_none_are_refused(pipeline: str, row: str, exception: type, message: str) -> None:
    with pytest.raises(exception, match=message):
        explain_command.run(pipeline, row, overrides=[], version=None, json_file=None)


def test_versions_that_are_not_there_are_refused(pipeline: str, tmp_path: Path) -> None:
    with pytest.raises(MlsparkError, match="no version 7 that prepare wrote; there are 0"):
        explain_command.run(pipeline, ROW, overrides=[], version=7, json_file=None)
    with pytest.raises(MlsparkError, match="no feature table; run"):
        explain_command.run(pipeline, ROW, overrides=[f"storage.root={tmp_path}"], version=None, json_file=None)
