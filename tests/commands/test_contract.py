"""`mlspark contract infer` and `check`, on small files: what they print, find and refuse, and that they write nothing."""

import io
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from rich.console import Console
from typer.testing import CliRunner

from mlspark.commands import contract as contract_commands
from mlspark.commands import main as cli
from mlspark.commands import source_arguments
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError
from mlspark.intake import check as checking
from mlspark.intake import draft as drafts
from mlspark.sources import catalog

from ..conftest import census_settings

PEOPLE = {
    "name": "people",
    "min_rows": 3,
    "max_quarantined_share": 0.5,
    "freshness": {"column": "seen", "max_age_hours": 24},
    "columns": [
        {"name": "id", "type": "int", "nullable": False, "min": 1},
        {"name": "name", "type": "string", "max_missing_share": 0.2},
        {"name": "seen", "type": "date"},
    ],
}


def people(**changes: Any) -> Contract:
    return Contract.model_validate_json(json.dumps(PEOPLE | changes))


def check(spark: SparkSession, folder: Path, contract: Contract, **lines: list[str]) -> dict[str, Any]:
    """The report on one CSV file with a header per source."""
    sources = {}
    for name, rows in lines.items():
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
        sources[name] = source_arguments.settings(f"{name}.csv", "csv", ["header=true"])
    return checking.check(spark, contract, sources, root=str(folder))


def test_report_has_each_rule_with_its_rows_and_three_examples(spark: SparkSession, tmp_path: Path) -> None:
    limits = {"min_rows": 1, "freshness": None, "max_quarantined_share": 0.9}
    learn = ["id,name,seen", "1,Ada,2024-01-01", *(f"-{n},x{n},2024-01-01" for n in range(1, 6)), "2,Bob"]
    report = check(
        spark, tmp_path, people(**limits), learn=learn, test=["id,name,seen", "x,Eva,2024-01-01", "3,Al,2024-01-01"]
    )
    assert report["is_met"]
    assert report["problems"] == []
    counts = {name: [s["rows_read"], s["rows_good"], s["rows_bad"]] for name, s in report["sources"].items()}
    assert counts == {"learn": [7, 1, 6], "test": [2, 1, 1]}
    assert {rule: found["rows"] for rule, found in report["rules"].items()} == {
        "id.min": 5,
        "id.type": 1,
        "malformed": 1,
    }
    shown = {rule: [(e["value"], e["row"]) for e in found["examples"]] for rule, found in report["rules"].items()}
    assert shown == {
        "id.min": [(f"-{n}", f"-{n},x{n},2024-01-01") for n in (1, 2, 3)],
        "id.type": [("x", "x,Eva,2024-01-01")],
        "malformed": [("not 3 fields", "2,Bob")],
    }
    assert report["rules"]["id.type"]["examples"][0]["file"].endswith("/test.csv")


def test_all_problems_of_the_table_are_listed(spark: SparkSession, tmp_path: Path) -> None:
    old, few = "1,,2024-01-01", "-1,Ada,2024-01-01"
    strict = people(max_quarantined_share=0.1, schema_policy={"extra": "refuse", "missing": "ignore"})
    report = check(
        spark, tmp_path, strict, learn=["id,name,seen,x", f"{old},", f"{old},", f"{old},"], test=["id,name,seen", few]
    )
    assert not report["is_met"]
    assert report["sources"]["learn"]["schema_differences"] == {"extra": ["x"]}
    assert report["sources"]["learn"]["missing"] == {"name": 3}
    drifted, bad, missing, stale, few_rows = report["problems"]
    assert drifted.startswith("learn: the source has extra columns (x); nothing was written.")
    assert bad.startswith("1 of 4 rows are bad (id.min 1), more than max_quarantined_share=0.1: check the source")
    assert missing == "learn: name: 3 of 3 values are missing: more missing than max_missing_share=0.2"
    assert stale.startswith("learn: newest seen is ")
    assert few_rows == "test: 0 good rows of 1 read, fewer than min_rows=3"


def test_report_can_be_read(spark: SparkSession, tmp_path: Path) -> None:
    limits = {"min_rows": 1, "freshness": None, "max_quarantined_share": 0.9}
    report = check(spark, tmp_path, people(**limits), learn=["name,id,seen", "Ada,1,2024-01-01", "[b]Bob[/b],0,"])
    console = Console(width=200, record=True, file=io.StringIO())
    contract_commands.show(report, console)
    shown = console.export_text()
    for part in ("learn", "learn.csv", "id.min", "[b]Bob[/b],0,", "reordered", "The data meets the contract"):
        assert part in shown
    assert "contract people" in shown


def test_check_of_the_census_agrees_with_prepare_and_writes_nothing(
    spark: SparkSession, small_census: Path, tmp_path: Path
) -> None:
    settings = census_settings(small_census, tmp_path / "home")
    report = checking.check(
        spark,
        Contract.model_validate_json(Path(settings.contract).read_text()),
        {"learn": settings.sources.learn, "test": settings.sources.test},  # type: ignore[dict-item]
        root=settings.sources.root,
    )
    assert report["is_met"]
    assert sum(source["rows_bad"] for source in report["sources"].values()) == 40
    assert sum(source["rows_read"] for source in report["sources"].values()) == 2100
    assert all(1 <= len(rule["examples"]) <= 3 for rule in report["rules"].values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["json", "parquet", "orc", "delta"])
def test_every_kind_of_file_meets_its_draft(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    rows = spark.createDataFrame([(1, "Ada", 1.5), (2, None, -0.5), (3, "", 2.0)], "id int, name string, score double")
    rows.coalesce(1).write.format(kind).save(str(tmp_path / "people"))
    settings = source_arguments.settings(
        str(tmp_path / "people"), source_arguments.guess_kind(str(tmp_path / "people"))[0], []
    )
    assert settings.kind == kind
    draft = drafts.draft_from(spark, settings, name="people")
    found = {rule.name: (rule.type, rule.nullable, rule.min, rule.max) for rule in draft.contract.columns}
    assert found == {
        "id": ("int", False, None, None),
        "name": ("string", True, None, None),
        "score": ("double", False, None, None),
    }
    report = checking.check(spark, draft.contract, {"people": settings}, root=".")
    assert (report["is_met"], report["rules"], report["sources"]["people"]["schema_differences"]) == (True, {}, {})


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("a/people.csv", "csv"),
        ("people.CSV.gz", "csv"),
        ("s3a://bucket/a/*.jsonl", "json"),
        ("hdfs://host/people.parquet", "parquet"),
        ("people.orc", "orc"),
        ("jdbc:postgresql://host/db", "jdbc"),
        ("table", "delta"),
        ("folder", "parquet"),
    ],
)
def test_kind_is_told_from_the_name_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: str
) -> None:
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    (tmp_path / "table" / "part-0.parquet").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part-0.snappy.parquet").touch()
    (tmp_path / "folder" / "_SUCCESS").touch()
    monkeypatch.chdir(tmp_path)
    assert source_arguments.guess_kind(source)[0] == kind


@pytest.mark.parametrize("source", ["sales.people", "nothing", "empty", "mixed"])
def test_kind_that_cannot_be_told_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for name in ("a.csv", "b.json"):
        (tmp_path / "mixed" / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=f"{source}: its kind cannot be inferred from its name; give --kind, one of csv"
    ):
        source_arguments.guess_kind(source)


def test_options_become_settings_of_the_right_type() -> None:
    csv = source_arguments.settings("a.tsv", "csv", ["header=true", "missing=?", "max_line_bytes=9"])
    assert csv.model_dump(include={"path", "separator", "header", "missing", "max_line_bytes"}) == {
        "path": "a.tsv", "separator": "\t", "header": True, "missing": {"*": ("?",)}, "max_line_bytes": 9,
    }  # fmt: skip
    several: Any = source_arguments.settings(
        "a.csv", "csv", ["missing=?", "missing=NA", "missing.age=-1", "missing.age=x"]
    )
    assert several.missing == {"*": ("?", "NA"), "age": ("-1", "x")}
    hive = source_arguments.settings("sales.people", "hive", [])
    assert hive.model_dump(include={"kind", "table"}) == {"kind": "hive", "table": "sales.people"}


def test_session_for_a_hive_table_has_its_metastore() -> None:
    hive = source_arguments.settings("sales.people", "hive", ["metastore=thrift://127.0.0.1:9083"])
    assert catalog.spark_settings([hive]) == {
        "spark.sql.catalogImplementation": "hive",
        "spark.hadoop.hive.metastore.uris": "thrift://127.0.0.1:9083",
    }
    assert catalog.spark_settings([source_arguments.settings("a.csv", "csv", [])]) == {}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("csv", ["heder=true"], "--option heder: unknown, did you mean header?"),
        ("orc", ["xyz=1"], "--option xyz: unknown, known: has_label, filter, path"),
        ("csv", ["header"], "--option header: expected KEY=VALUE"),
        ("csv", ["header=true", "header=false"], "--option header=false: header is given twice; only missing may be"),
        ("orc", ["missing=?"], "--option missing: unknown"),
        ("csv", ["path=b"], "--option path: expected KEY=VALUE, and KEY other than kind and path"),
        ("delta", ["version=x"], "--option version: input should be a valid integer"),
        ("jdbc", [], "--option query=...: missing, --kind jdbc needs it"),
    ],
)
def test_wrong_options_are_refused_by_name(kind: str, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        source_arguments.settings("a", kind, options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/adult.data", "adult"), ("adult.data", "adult"), ("sales.people", "people"), ("s3a://b/My Table/", "my_table"),
        ("jdbc:postgresql://host/shop", "shop"), ("*.csv", "draft"),
    ],
)  # fmt: skip
def test_contract_is_named_after_its_source(source: str, name: str) -> None:
    assert source_arguments.default_name(source) == name


def mlspark(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mlspark.commands.main import main; main()", "contract", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check",), "contract check: give either --config FILE, or SOURCE and --contract FILE"),
        (("check", "a.csv", "--contract", "c.json", "--set", "name=x"), "--set: changes settings of --config"),
        (("check", "--config", "c.yaml", "--option", "header=true"), "--kind, --option: belong to SOURCE"),
        (
            ("check", "a.csv", "--contract", "c.json", "--json", "no/r.json"),
            "--json no/r.json: the folder does not exist",
        ),
        (("infer", "people.csv", "--into", "people.csv"), "--into people.csv: exists already"),
    ],
)
def test_wrong_arguments_end_with_status_2_before_spark_starts(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "people.csv").touch()
    done = mlspark(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"mlspark: {message}")


@pytest.mark.slow
def test_check_of_bad_data_ends_with_status_2_after_its_report(tmp_path: Path) -> None:
    """As a user does it, with a Spark of its own."""
    (tmp_path / "people.csv").write_text("id,name,seen\n0,Ada,2024-01-01\n")
    (tmp_path / "people.json").write_text(json.dumps(PEOPLE))
    arguments = ("people.csv", "--option", "header=true", "--contract", "people.json", "--json", "report.json")
    done = mlspark("check", *arguments, folder=tmp_path)
    told = done.stderr.splitlines()
    assert done.returncode == 2
    assert told[0] == "people.csv: taken for csv, because its name ends in .csv"
    assert told[-1].startswith("mlspark: contract people: not met: 1 of 1 rows are bad (id.min 1)")
    assert "id.min" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["rules"]["id.min"]["rows"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"people.csv", "people.json", "report.json"}


def test_data_meets_the_draft_that_infer_writes(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_commands, "_session", lambda *_, **__: nullcontext(spark))
    monkeypatch.chdir(tmp_path)
    Path("people.csv").write_text("id;name\n1;Ada\n2;Bob\n")
    source = ["people.csv", "--option", "header=true", "--option", "separator=;"]
    drafted = CliRunner().invoke(cli.app, ["contract", "infer", *source, "--label", "name", "--into", "people.json"])
    assert (drafted.exit_code, drafted.stdout) == (0, "")
    assert drafted.stderr.splitlines()[1:] == [
        "draft from 2 rows: takes other values of the same types, but of the label; for ranges and lists as seen: --closed",
        "wrote people.json: 2 columns",
    ]
    printed = CliRunner().invoke(cli.app, ["contract", "infer", *source, "--label", "name"])
    assert printed.stdout == Path("people.json").read_text()
    closed = CliRunner().invoke(cli.app, ["contract", "infer", *source, "--closed"])
    assert '"name": "id", "type": "int", "nullable": false, "min": 1, "max": 2' in closed.stdout
    checked = CliRunner().invoke(cli.app, ["contract", "check", *source, "--contract", "people.json"])
    assert checked.exit_code == 0
    assert "The data meets the contract" in checked.stdout
