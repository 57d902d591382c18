"""`mlspark explain`: rows of JSON by a registered version, printed, as JSON and as a page; what it refuses beforehand."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from mlspark.commands import explain
from mlspark.errors import ConfigError, RegistryError
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor
from mlspark.streaming import delta_files
from mlspark.tracking import runs

from ..conftest import SAMPLE, census_settings
from ..registry import example
from ..registry.conftest import kept_stores

ROW = example.ROW | {"day": "2024-02-29", "moment": "2024-02-29T18:30:01Z", "amount": "12.34"}
ROWS = [ROW, ROW | {"small": -1, "text": "pink"}, ROW | {"small": 9, "text": None}]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Settings of a pipeline with a registered version, and rows that it is said to have learnt from."""
    home = tmp_path_factory.mktemp("explained")
    settings = census_settings(SAMPLE, home)
    package = example.package()
    with kept_stores():
        client = runs.connect(settings.tracking, settings.root)
        run = runs.open_run(client, settings.tracking, "random", tags={})
        tensors, random = package.encoder.tensors(package.task), np.random.default_rng(0)
        columns: dict[str, Any] = {
            name: random.normal(size=300).astype(np.float32) for name in tensors.columns("dense")
        }
        ids = zip(tensors.columns("ids"), tensors.cardinalities, strict=True)
        columns |= {name: random.integers(0, size, 300) for name, size in ids}
        others = {"label": np.zeros(300, np.float32), "row_id": np.arange(300), "split": ["train"] * 300}
        write_deltalake(str(home / "table"), pa.table(columns | others), partition_by=["split"])
        delta_files.take(str(home / "table")).save(f"{settings.root}/runs/{run.run_id}/snapshot.json")
        made = Package.pack(
            model={name: package.files[name] for name in ("model.json", "weights.safetensors")},
            encoder=package.encoder, contract=package.contract, task=package.task,
            provenance=package.provenance | {"run_id": run.run_id},
        )  # fmt: skip
        versions.register(client, made, run_id=run.run_id, name="census", alias="champion")
    file = home / "census.yaml"
    file.write_text(settings.to_yaml())
    return str(file)


def test_each_row_has_its_prediction_and_what_made_it_or_why_it_is_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, written, page = tmp_path / "rows.json", tmp_path / "explained.json", tmp_path / "page.html"
    rows.write_text(json.dumps({"dataframe_records": ROWS}))
    with kept_stores():
        explain.run("census/1", str(rows), files=[config], top=3, json_file=str(written), page_file=str(page))
    shown = capsys.readouterr().out
    explained = json.loads(written.read_text())
    assert (explained["model"], explained["version"], explained["method"]) == ("census", 1, "integrated gradients")
    assert "the mean of 256 training rows of" in explained["baseline"]
    first, refused, last = explained["rows"]
    expected = Predictor(example.package()).predict(example.rows({}, {"small": 9, "text": None}))
    for place, row in enumerate((first, last)):
        assert row["prediction"] == {name: values[place] for name, values in expected.items()}
        added = sum(part["adds"] for part in row["contributions"])
        assert row["baseline"] + added == pytest.approx(row["output"] + row["completeness_error"])
        assert abs(row["completeness_error"]) < 1e-3
        assert len(row["contributions"]) == 12
        sizes = [abs(part["adds"]) for part in row["contributions"]]
        assert sizes == sorted(sizes, reverse=True)
    values = {part["columns"][0]: part["values"] for part in last["contributions"]}
    assert (values["small"], values["text"], values["big"]) == ([9], [None], [example.BIG])
    assert (values["day"], values["amount"]) == (["2024-02-29"], ["12.34"])
    assert [(each["column"], each["rule"], each["value"]) for each in refused["refused"]] == [
        ("small", "min", -1), ("text", "allowed", "pink"),
    ]  # fmt: skip
    assert "row 1: refused" in shown
    assert "  text.allowed: row 1 has 'pink'" in shown
    assert re.search(
        r"row 0: probability 0\.\d+, prediction (yes|no)\n  log odds of yes -?0\.\d+, from -?0\.\d+\n", shown
    )
    assert shown.count("9 others") == 2
    assert "census version 1: 3 rows, 1 refused (small.min 1, text.allowed 1)" in shown
    html = page.read_text()
    assert html.count('class="card examined"') == 3
    assert "text.allowed: row 1 has &#39;pink&#39;" in html
    assert str(example.BIG) in html or "9 others" in html


def test_a_row_alone_on_standard_input_is_explained_by_the_version_in_use(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    piped = tmp_path / "piped"
    piped.write_text(json.dumps(ROW))
    with piped.open() as stream, kept_stores():
        monkeypatch.setattr("sys.stdin", stream)
        explain.run("census", "-", files=[config])
    assert "census version 1: 1 rows, 0 refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "row 0 is int, no object of columns; give an object for each row"),
        ("{", "not JSON"),
        ('{"a": 1, "a": 2}', "not JSON: key 'a' is given twice in one object"),
        ('[{"a": NaN}]', "not JSON: NaN is no JSON; a missing value is null"),
        ('{"a": 1}\n{"a": ', "row 1: not JSON"),
        (
            '{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}',
            "dataframe_split: not columns and rows of as many",
        ),
    ],
)
def test_what_is_no_row_is_refused_by_name(config: str, tmp_path: Path, text: str, message: str) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(text)
    with kept_stores(), pytest.raises(ConfigError, match=re.escape(message)):
        explain.run("census/1", str(rows), files=[config])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("census/x", "rows.json"), {}, "census/x: names no version; give NAME/3, NAME@alias or NAME"),
        (("census", "absent.json"), {}, "ROWS absent.json: cannot be read (No such file or directory)"),
        (("census", "absent.csv"), {}, "ROWS absent.csv: no such file or folder"),
        (("census", "rows.xyz"), {}, "rows.xyz: its kind cannot be inferred from its name"),
        (("census",), {}, "ROWS: missing; give a file of rows"),
        (("census", "-"), {"row_id": "a"}, "--row-id a: 'a' is no row_id"),
        (("census", "x"), {"json_file": "/nowhere/x"}, "--json /nowhere/x: the folder does not exist"),
        (
            ("census", "x"),
            {"overrides": ["storage.root=x"]},
            "--set storage.root=x: settings of no pipeline; give --config",
        ),
    ],
)
def test_wrong_options_are_refused_by_name(
    arguments: tuple[str, ...], options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)):
        explain.run(*arguments, **options)


def test_a_network_whose_rows_are_elsewhere_is_refused_by_name(config: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROW))
    tracking = f"tracking.uri={runs.embedded_uri(str(Path(config).parent))}"
    with kept_stores(), pytest.raises(RegistryError, match=r"snapshot\.json is missing, which names the rows"):
        explain.run("census/1", str(rows), files=[config], overrides=[tracking, f"storage.root={tmp_path}"])
