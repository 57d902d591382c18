"""The monitor stage on real census rows: what changed alarms by name, what did not does not, late labels find their rows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark import tables
from mlspark.commands.monitor import lines as monitor_lines
from mlspark.engines import eager
from mlspark.errors import ConfigError, ContractError, SourceError, TableError
from mlspark.evaluation import predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.features import prepared as preparations
from mlspark.models.tabular import TabularSettings
from mlspark.registry import provenance, versions
from mlspark.registry.package import Package
from mlspark.settings.pipeline import Settings
from mlspark.stages.monitor import PAGE, chosen_commits, monitor
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.tracking import runs

from ..conftest import ROOT, SAMPLE, census_settings

COUNTRY, AGE, LABEL = 13, 0, 14


class Census(NamedTuple):
    data: Path
    folder: Path
    lines: list[str]
    """Rows of adult.test."""

    @property
    def settings(self) -> Settings:
        return self.with_()

    def with_(self, *overrides: str) -> Settings:
        return census_settings(self.data, self.folder / "home", *overrides)

    def scored(self, spark: SparkSession, name: str, lines: list[str]) -> Settings:
        """Score these lines with the version, and return the settings."""
        file = self.folder / f"{name}.csv"
        file.write_text("\n".join(lines) + "\n")
        settings = self.with_(f"scoring.source.path={file}", "scoring.source.comment=''")
        score(spark, settings)
        return settings


@pytest.fixture(scope="module")
def census(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Census:
    return learnt(spark, SAMPLE, tmp_path_factory.mktemp("monitored"))


def learnt(spark: SparkSession, data: Path, folder: Path) -> Census:
    """A prepared table, a version that learnt from it in 60 steps, and its kept predictions of the test rows."""
    settings = census_settings(data, folder / "home")
    prepare(spark, settings)
    prepared = preparations.latest(settings.table("features"))
    task, model = prepared.task, TabularSettings(hidden=(16,))
    tensors = prepared.encoder.tensors(task)
    rows = tables.read(spark, prepared.table).orderBy("row_id").toArrow().to_pandas()
    inputs = {spec.name: torch.from_numpy(rows[list(spec.columns)].to_numpy(spec.dtype)) for spec in tensors.specs}
    target, is_train = (
        torch.from_numpy(rows["label"].to_numpy(np.float32)),
        torch.from_numpy((rows["split"] == "train").to_numpy()),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model.build(tensors, task.num_outputs)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            outputs = network(**{name: values[is_train] for name, values in inputs.items()})
            task.loss_of(outputs, target[is_train]).mean().backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        outputs = network(**inputs).numpy()
    is_test = (rows["split"] == "test").to_numpy()
    kept = Predictions.of(rows["row_id"][is_test], rows["label"][is_test], outputs[is_test])
    client = runs.connect(settings.tracking, settings.root)
    run_id = runs.open_run(client, settings.tracking, "census", tags={}).run_id
    predictions.write(predictions.uri_of(f"{settings.root}/runs/{run_id}", "test"), kept)
    made = Package.pack(
        model=eager.pack(model, tensors, task.num_outputs, network.state_dict()),
        encoder=prepared.encoder,
        contract=prepared.contract,
        task=task,
        provenance=provenance.describe(
            run_id=run_id, table=prepared.table, table_version=prepared.version,
            metrics={"test": kept.metrics(task)}, train_seconds=1.0,
        ),
    )  # fmt: skip
    versions.register(client, made, run_id=run_id, name="census", alias="champion")
    lines = (data / "adult" / "adult.test").read_text().splitlines()[1:]
    return Census(data, folder, [line for line in lines if line])


def without_label(line: str) -> str:
    return line.rsplit(",", 1)[0] + ","


def changed(line: str, column: int, value: str) -> str:
    fields = line.split(", ")
    return ", ".join([*fields[:column], value, *fields[column + 1 :]])


def checks(result: dict[str, Any], verdict: str) -> set[tuple[str, str]]:
    return {(check["name"], check["measure"]) for check in result["checks"] if check["verdict"] == verdict}


def test_unchanged_rows_do_not_alarm_and_the_same_again_writes_nothing(spark: SparkSession, census: Census) -> None:
    """The rows carry their labels, as adult.test does."""
    settings = census.scored(spark, "same", census.lines)
    report = monitor(spark, settings)
    [result] = report["monitored"]
    assert report["alarms"] == 0, checks(result, "alarm")
    assert result["labels"] == {
        "scored": len(census.lines),
        "labelled": len(census.lines),
        "unlabelled": 0,
        "no_class": 0,
    }
    # The version was tried on these very rows: the kept predictions are of them.
    assert result["kept"] == {"split": "test", "rows": len(census.lines)}
    by_name = {(check["subject"], check["name"], check["measure"]): check for check in result["checks"]}
    assert by_name["score", "probability", "psi"]["value"] == pytest.approx(0, abs=0.01)
    loss = by_name["performance", "log_loss", "metric_loss"]
    # Outputs in one batch of all rows and in those of a scoring: the last bits of float32 differ.
    assert (loss["value"], loss["new"]) == (pytest.approx(0, abs=1e-5), pytest.approx(loss["old"], rel=1e-5))
    kept, now = result["metrics"]["kept"], result["metrics"]["now"]
    assert set(kept) == set(now)
    assert now["roc_auc"] == pytest.approx(kept["roc_auc"], abs=1e-4)
    table = settings.table("monitoring")
    written = tables.read(spark, table).collect()
    assert len(written) == len(result["checks"])
    assert {row["monitoring_id"] for row in written} == {result["id"]}
    assert f"version {result['score_version']}" in Path(tables.sidecar(table, result["id"], PAGE)).read_text()
    again = monitor(spark, settings)["monitored"][0]
    assert again["already_done"]
    assert len(tables.commits(table)) == 1
    assert {**again, "already_done": False} == json.loads(json.dumps(result))


def test_changed_rows_alarm_by_name(spark: SparkSession, census: Census) -> None:
    """Older people, countries that nobody came from, no labels; every tenth row is bad."""
    lines = [without_label(line) for line in census.lines]
    lines = [changed(line, AGE, str(int(line.split(",")[0]) + 25)) for line in lines]
    lines = [changed(line, COUNTRY, "Atlantis,") if place % 20 == 0 else line for place, line in enumerate(lines)]
    lines = [changed(line, AGE, "x") if place % 12 == 1 else line for place, line in enumerate(lines)]
    settings = census.scored(spark, "changed", lines)
    [result] = monitor(spark, settings)["monitored"]
    assert checks(result, "alarm") >= {
        ("age", "psi"), ("native_country", "unseen_share"), ("rows", "quarantined_increase"),
    }  # fmt: skip
    assert {name for name, _ in checks(result, "alarm")} <= {
        "age",
        "native_country",
        "rows",
        "probability",
        "prediction",
    }
    unseen = next(
        check for check in result["checks"] if check["measure"] == "unseen_share" and check["verdict"] == "alarm"
    )
    assert unseen["detail"].startswith("'Atlantis'")
    assert [left_out["subject"] for left_out in result["not_compared"]] == ["label", "performance"]


def test_late_labels_find_their_rows(spark: SparkSession, census: Census) -> None:
    """Half of the labels are known, turned round; some are of no row, one is no class."""
    settings = census.scored(spark, "late", [without_label(line) for line in census.lines])
    score_id = chosen_commits(settings)[-1].metadata["id"]
    scored = tables.read(spark, settings.table("scores")).where(F.col("score_id") == score_id)
    turned = {"<=50K.": ">50K", ">50K.": "<=50K"}
    labels = [turned[line.rsplit(", ", 1)[1]] for line in census.lines]
    half = len(labels) // 2
    lines = ["income,row_number", *(f"{label},{place}" for place, label in enumerate(labels[:half]))]
    lines += [f",{half}", f">50K,{10**9}", f"maybe,{half + 1}"]
    file = census.folder / "labels.csv"
    file.write_text("\n".join(lines) + "\n")
    of_file = f"monitoring.labels={{kind: csv, path: {file}, header: true}}"
    with_labels = census.with_(of_file)
    [result] = monitor(spark, with_labels)["monitored"]
    assert result["labels"] == {
        "scored": len(labels), "labelled": half, "unlabelled": len(labels) - half, "labels": half + 1, "no_class": 0,
        "without_score": 1, "bad_rows": 1, "reasons": {"income.allowed": 1}, "key": ["row_number"],
    }  # fmt: skip
    probability = np.array([row[0] for row in scored.orderBy("row_number").select("probability").collect()])[:half]
    is_event = np.array([label == ">50K" for label in labels[:half]])
    expected = -np.log(np.where(is_event, probability, 1 - probability)).mean()
    assert result["metrics"]["now"]["log_loss"] == pytest.approx(expected, rel=1e-9)
    assert result["metrics"]["now"]["num_rows"] == half
    assert {("log_loss", "metric_loss"), ("income", "psi")} <= checks(result, "alarm")
    written = len(tables.commits(settings.table("monitoring")))
    file.write_text("\n".join([*lines, "<=50K,0"]) + "\n")
    with pytest.raises(SourceError, match=r"keys with several labels: 1 keys, for example row_number=0; keep one"):
        monitor(spark, with_labels)
    file.write_text("income,sex\n>50K,Female\n")
    by_sex = census.with_(of_file, "monitoring.label_key=[sex]")
    with pytest.raises(SourceError, match=r"label_key: keys of several scored rows: .* sex=Female.*row_number"):
        monitor(spark, by_sex)
    assert len(tables.commits(settings.table("monitoring"))) == written


def test_what_can_be_corrected_is_said(spark: SparkSession, census: Census, tmp_path: Path) -> None:
    census.scored(spark, "same", census.lines)
    with pytest.raises(TableError, match=r"no score table; run jobs/score.py"):
        chosen_commits(census_settings(SAMPLE, tmp_path))
    with pytest.raises(TableError, match=r"no scores in version 99; the newest are"):
        chosen_commits(census.settings, commit=99)
    with pytest.raises(ConfigError, match="give one of them"):
        chosen_commits(census.settings, commit=0, since=0)
    with pytest.raises(ConfigError, match=r"monitoring.ignore: .*agee.*age"):
        monitor(spark, census.with_("monitoring.ignore=[agee]"))
    file = tmp_path / "labels.csv"
    of_rmse = census.with_("monitoring.metric=rmse")
    with pytest.raises(ConfigError, match=r"monitoring.metric=rmse: a binary task has no such metric"):
        monitor(spark, of_rmse)
    labels = f"monitoring.labels={{kind: csv, path: {file}, header: true}}"
    file.write_text("id,income\n1,>50K\n")
    by_id, by_row_id = census.with_(labels, "monitoring.label_key=[id]"), census.with_(labels)
    with pytest.raises(ConfigError, match=r"label_key: id: no column of the score table"):
        monitor(spark, by_id)
    with pytest.raises(ContractError, match="row_id"):
        monitor(spark, by_row_id)


@pytest.mark.slow
def test_the_job_ends_with_a_status_for_schedulers(spark: SparkSession, census: Census) -> None:
    """0: fine, 3: alarm, also where it was monitored before, 2: something to correct."""
    first = score(spark, census.scored(spark, "same", census.lines))["output_version"]
    census.scored(spark, "changed", [changed(line, AGE, "90") for line in census.lines])

    def run(*options: str) -> tuple[int, str, str]:
        root = f"storage.root={census.folder / 'home'}"
        command = [sys.executable, "jobs/monitor.py", "--config", "conf/census.yaml", "--set", root, *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        return done.returncode, done.stdout, done.stderr

    status, told, _ = run("--commit", str(first))
    assert (status, "0 alarms" in told) == (0, True)
    page, report = census.folder / "page.html", census.folder / "report.json"
    for is_again in (False, True):
        status, told, _ = run("--html", str(page), "--report", str(report))
        assert (status, "ALARM columns: age: PSI" in told, "already monitored" in told) == (3, True, is_again)
        assert json.loads(report.read_text())["monitored"][0]["already_done"] is is_again
        assert "age" in page.read_text()
    status, told, error = run("--commit", "99")
    assert (status, told) == (2, "")
    assert error.startswith("monitor: ")
    assert "no scores in version 99" in error


@pytest.mark.slow
def test_real_adult_rows_alarm_where_they_changed(spark: SparkSession, whole_adult: Path, tmp_path: Path) -> None:
    """All rows of adult.test, 200 of them, and 200 of which everyone is 10 years older; then 40 % of the labels."""
    adult = learnt(spark, whole_adult, tmp_path)
    random = np.random.default_rng(0)
    few = [adult.lines[place] for place in random.choice(len(adult.lines), 200, replace=False)]
    older = [changed(line, AGE, str(int(line.split(",")[0]) + 10)) for line in few]
    found = {}
    for name, lines in (("all", adult.lines), ("few", few), ("older", [without_label(line) for line in older])):
        [found[name]] = monitor(spark, adult.scored(spark, name, lines))["monitored"]
        print(name, *monitor_lines(found[name]), sep="\n")
    assert found["all"]["alarms"] == found["few"]["alarms"] == 0
    assert checks(found["all"], "chance") == set()
    assert ("age", "psi") in checks(found["older"], "alarm")
    assert {name for name, _ in checks(found["older"], "alarm")} <= {"age", "probability", "prediction"}
    settings = adult.scored(spark, "late", [without_label(line) for line in adult.lines])
    labels = [f"{place},{line.rsplit(', ', 1)[1]}" for place, line in enumerate(adult.lines) if random.random() < 0.4]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["row_number,income", *labels]) + "\n")
    [late] = monitor(spark, adult.with_(f"monitoring.labels={{kind: csv, path: {file}, header: true}}"))["monitored"]
    print("late", *monitor_lines(late), sep="\n")
    assert late["alarms"] == 0
    assert (late["labels"]["labelled"], late["labels"]["without_score"]) == (len(labels), 0)
    kept, now = late["metrics"]["kept"], late["metrics"]["now"]
    assert kept["log_loss_interval"][0] < now["log_loss"] < kept["log_loss_interval"][1]
    assert len(tables.commits(settings.table("monitoring"))) == 4
