"""The three stages in a row, with real ranks, MLflow and Delta; and the jobs as a user starts them."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.commands import evaluate
from mlspark.contracts.data_frames import from_pandas
from mlspark.errors import BudgetSpent, ConfigError, ContractError, RegistryError, TableError, TrainingFailed
from mlspark.evaluation import predictions
from mlspark.evaluation.examined_rows import ExaminedError
from mlspark.registry import versions
from mlspark.scoring.predictor import Predictor
from mlspark.settings.pipeline import Settings
from mlspark.stages import training_record
from mlspark.stages.prepare import prepare
from mlspark.stages.promote import promote
from mlspark.stages.score import score
from mlspark.stages.train import train
from mlspark.tracking import runs
from mlspark.training import progress_display
from mlspark.training.events import EpochEnded, Event

from ..conftest import ROOT, SAMPLE, census_settings

FAST = (
    "training.epochs=3",
    "training.global_batch_size=64",
    "training.optimizer.learning_rate=0.02",
    "model.hidden=[16]",
)


def without_label(data: Path, into: Path) -> Path:
    """Write adult.test without its last field, as a scoring job would get it."""
    lines = (data / "adult" / "adult.test").read_text().splitlines()
    into.write_text("\n".join(text.rsplit(",", 1)[0] if "," in text else text for text in lines) + "\n")
    return into


def scored_accuracy(data: Path, scores: pd.DataFrame, names: list[str]) -> tuple[int, float]:
    """Number of scored rows whose label is one, and their accuracy; labels are looked up by a row's content.

    Equal rows must have equal predictions.
    """
    predictions: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in scores.itertuples():
        predictions[tuple("?" if pd.isna(getattr(row, name)) else str(getattr(row, name)) for name in names)].add(
            row.prediction
        )
    assert all(len(found) == 1 for found in predictions.values())
    right = total = 0
    for text in (data / "adult" / "adult.test").read_text().splitlines():
        *fields, label = [field.strip() for field in text.split(",")]
        if tuple(fields) in predictions and label in ("<=50K.", ">50K."):
            total += 1
            right += predictions[tuple(fields)] == {label.removesuffix(".")}
    return total, right / total


PERSON = (
    "{age}, Private, 77516, Bachelors, 13, Never-married, Sales, Husband, White, {sex}, 0, 0, {hours}, Peru, {label}"
)
GOOD = {"age": "39", "sex": "Male", "hours": "40", "label": "<=50K"}
# The last fields of what scoring gets are cut off: two of these are good rows then.
BAD_ROWS = [
    PERSON.format_map(GOOD | wrong)
    for wrong in (
        {"age": "twelve"}, {"sex": "M"}, {"hours": "forty"}, {"hours": "40.5"}, {"label": "maybe"}, {"label": "50K"},
    )
]  # fmt: skip
BROKEN_LABELS = 2


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample of the Adult files, each with the same bad rows in its middle."""
    folder = tmp_path_factory.mktemp("census")
    (folder / "adult").mkdir()
    for name in ("adult.data", "adult.test"):
        lines = (SAMPLE / "adult" / name).read_text().split("\n")
        (folder / "adult" / name).write_text("\n".join([*lines[:300], *BAD_ROWS, *lines[300:]]))
    return folder


@pytest.fixture(scope="module")
def pipeline(spark: SparkSession, census: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished prepare, train and promote on the sample of the census."""
    home = tmp_path_factory.mktemp("home")
    unlabelled = without_label(census, home / "unlabelled.csv")
    settings = census_settings(
        census, home, *FAST, f"scoring.source.path={unlabelled}", "scoring.source.has_label=false"
    )
    prepared, trained = prepare(spark, settings), train(spark, settings)
    return {"settings": settings, "prepared": prepared, "trained": trained, "promoted": promote(settings)}


def test_each_rank_takes_equal_steps_and_every_row_is_seen_once_per_epoch(pipeline: dict[str, Any]) -> None:
    trained, learn = pipeline["trained"], pipeline["prepared"]["sources"]["learn"]
    rows = trained["rows_per_epoch"]
    assert 0.8 * learn["rows_good"] < rows < learn["rows_good"]
    assert (trained["epochs"], trained["restarts"]) == (3, 0)
    assert trained["steps"] == 3 * -(-rows // 64)
    assert trained["world_size"] == 2


def test_scores_agree_with_the_evaluation_and_a_second_run_adds_none(
    spark: SparkSession, census: Path, pipeline: dict[str, Any]
) -> None:
    settings: Settings = pipeline["settings"]
    first = score(spark, settings)
    assert first["rows_read"] == first["rows_scored"] + first["rows_quarantined"]
    scores = tables.read(spark, first["output"]).toPandas()
    assert len(scores) == first["rows_scored"]
    assert set(scores["model_version"]) == {first["model_version"]}
    assert scores["probability"].between(0, 1).all()

    model = versions.find(runs.connect(settings.tracking, settings.root), "census", "champion")
    names = [column.name for column in model.package.scoring_contract.columns]
    labelled = scores[[*names, "prediction"]]
    evaluated = pipeline["trained"]["metrics"]["test"]
    assert scored_accuracy(census, labelled, names) == (evaluated["num_rows"], evaluated["accuracy"])
    # Rows with a broken label are good rows without it: the evaluation never saw them, scoring does.
    assert first["rows_scored"] - evaluated["num_rows"] == BROKEN_LABELS
    assert first["rows_quarantined"] == len(BAD_ROWS) - BROKEN_LABELS

    again = score(spark, settings)
    assert again["already_done"]
    assert (again["output_version"], again["rows_scored"]) == (first["output_version"], first["rows_scored"])
    assert tables.read(spark, first["output"]).count() == len(scores)


def test_metrics_of_real_rows_are_those_of_a_model_that_has_learnt(pipeline: dict[str, Any]) -> None:
    evaluated = pipeline["trained"]["metrics"]["test"]
    assert evaluated["num_rows"] == 600
    assert evaluated["accuracy"] > 0.80  # 0.757 of the rows are <=50K
    assert evaluated["roc_auc"] > 0.85


def test_one_row_in_python_scores_as_on_spark(spark: SparkSession, pipeline: dict[str, Any]) -> None:
    settings: Settings = pipeline["settings"]
    model = versions.find(runs.connect(settings.tracking, settings.root), "census", 1)
    scored = tables.read(spark, score(spark, settings)["output"]).limit(20).toArrow()
    predictions = Predictor(model.package).predict(scored.drop_columns(["probability", "prediction"]))
    assert {name: values.tolist() for name, values in predictions.items()} == {
        name: scored.column(name).to_pylist() for name in ("probability", "prediction")
    }


def test_registered_model_serves_raw_rows_through_mlflow(pipeline: dict[str, Any]) -> None:
    import mlflow

    settings: Settings = pipeline["settings"]
    runs.connect(settings.tracking, settings.root)
    model = mlflow.pyfunc.load_model("models:/census@champion")
    row = {
        "age": 39.0, "workclass": None, "fnlwgt": 77516.0, "education": "Bachelors", "education_num": 13.0,
        "marital_status": "Never-married", "occupation": "Sales", "relationship": "Husband", "race": "White",
        "sex": "Male", "capital_gain": 0.0, "capital_loss": 0.0, "hours_per_week": 40.0, "native_country": "Peru",
    }  # fmt: skip
    [probability] = model.predict(pd.DataFrame([row]))["probability"]
    assert 0 < probability < 1
    with pytest.raises(ContractError, match=r"sex\.allowed: row 0 has 'M'"):
        model.predict(pd.DataFrame([row | {"sex": "M"}]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scoring.model=99"], r"model census: no version or alias 99 \(versions: 1.*aliases: challenger, champion\)"),
        (["scoring.model=best"], "model census: no version or alias 'best'"),
        (["registry.model_name=other"], r"model other: not registered \(registered: census\)"),
    ],
)
def test_absent_model_is_refused_by_name(
    spark: SparkSession, census: Path, pipeline: dict[str, Any], overrides: list[str], message: str
) -> None:
    settings = census_settings(census, Path(pipeline["settings"].root), *overrides)
    with pytest.raises(RegistryError, match=message):
        score(spark, settings)


def test_run_of_the_model_has_all_its_figures_and_every_run_has_ended(pipeline: dict[str, Any]) -> None:
    """As a user looks into the store: no figure is on a run that nobody asked for."""
    settings: Settings = pipeline["settings"]
    client = runs.connect(settings.tracking, settings.root)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    stored = {run.info.run_id: run for run in client.search_runs(experiments)}
    assert {run.info.status for run in stored.values()} == {"FINISHED"}
    assert all(
        run.info.run_name.startswith(f"census v{pipeline['trained']['snapshot_version']} tabular ")
        for run in stored.values()
    )
    run_id = pipeline["trained"]["run_id"]
    metrics = stored[run_id].data.metrics
    assert {
        "train_loss",
        "validation_log_loss",
        "validation_roc_auc",
        "test_accuracy",
        "test_roc_auc",
    } <= metrics.keys()
    assert metrics["test_accuracy"] == pipeline["trained"]["metrics"]["test"]["accuracy"]
    epochs = client.get_metric_history(run_id, "validation_log_loss")
    assert [measured.step for measured in epochs] == list(range(1, pipeline["trained"]["epochs"] + 1))
    best = pipeline["trained"]["metrics"]["validation"]["log_loss"]
    assert metrics["best_validation_log_loss"] == best == min(epoch.value for epoch in epochs)


def test_run_and_version_say_what_they_are_made_of(pipeline: dict[str, Any]) -> None:
    """Rows with their source and digest, all settings, the pipeline's commit, a card, an example that can be sent."""
    import mlflow

    settings: Settings = pipeline["settings"]
    prepared, trained = pipeline["prepared"], pipeline["trained"]
    client = runs.connect(settings.tracking, settings.root)
    run = client.get_run(trained["run_id"])
    version = client.get_model_version("census", str(trained["model_version"]))

    rows = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs if each.tags[0].value != "source"}
    assert rows.keys() == {"training", "validation", "test"}
    source: Any = mlflow.data.get_source(rows["training"])
    assert (source.path, source.delta_table_version) == (prepared["table"], prepared["version"])
    assert {split: json.loads(of_split.profile)["num_rows"] for split, of_split in rows.items()} == {
        "training": prepared["splits"]["train"]["rows"],
        "validation": prepared["splits"]["validation"]["rows"],
        "test": prepared["splits"]["test"]["rows"],
    }
    assert len({of_split.digest for of_split in rows.values()}) == 3
    raw = {each.dataset.name: each.dataset for each in run.inputs.dataset_inputs if each.tags[0].value == "source"}
    assert raw.keys() == {"census source learn", "census source test"}
    assert json.loads(raw["census source learn"].source)["path"] == prepared["sources"]["learn"]["uri"]
    assert raw["census source learn"].digest == prepared["sources"]["learn"]["sha256"][:36]

    assert run.data.params["split.validation_share"] == str(settings.split.validation_share)
    assert run.data.params["training.optimizer.learning_rate"] == "0.02"
    assert run.data.params["features.inputs.0.kind"] == settings.features.inputs[0].kind
    package = versions.find(client, "census", 1).package
    assert Settings.model_validate(package.provenance["settings"], strict=False) == settings

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert run.data.tags["mlflow.source.git.commit"] == version.tags["git_commit"] == commit.strip()
    assert "Predicts `income` (binary) from 14 columns" in version.description
    assert run.data.tags["mlflow.note.content"] == version.description
    served = mlflow.pyfunc.load_model("models:/census/1")
    [probability] = served.predict(served.input_example)["probability"]
    assert 0 < probability < 1


def test_training_that_is_finished_is_not_done_again(spark: SparkSession, pipeline: dict[str, Any]) -> None:
    settings: Settings = pipeline["settings"]
    client = runs.connect(settings.tracking, settings.root)
    before = {version.version for version in client.search_model_versions("name = 'census'")}
    again = train(spark, settings)
    assert again == pipeline["trained"] | {"already_done": True}
    assert {version.version for version in client.search_model_versions("name = 'census'")} == before
    assert [run.info.run_id for run in client.search_runs([client.get_run(again["run_id"]).info.experiment_id])].count(
        again["run_id"]
    ) == 1
    # Under another name there is none yet.
    assert training_record.finished(client, settings, "census-0123456789abcdef") is None


def test_of_two_trainings_at_once_one_trains_and_the_other_says_so(
    spark: SparkSession, census: Path, pipeline: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = census_settings(census, Path(pipeline["settings"].root), *FAST, "training.seed=9", "registry.alias=''")
    client = runs.connect(settings.tracking, settings.root)
    before = len(client.search_model_versions("name = 'census'"))
    refused: list[str] = []

    def begin_another(event: Event) -> None:
        if isinstance(event, EpochEnded) and not refused:
            with pytest.raises(ConfigError) as raised:
                train(spark, settings)
            refused.append(str(raised.value))

    monkeypatch.setattr(progress_display, "show", begin_another)
    trained = train(spark, settings)
    assert re.fullmatch(
        rf"run {trained['run_id']} of the same settings and table version is being trained by process {os.getpid()} on "
        r"\S+; wait for it, or set training\.recovery\.resume=false to train another one",
        refused[0],
    )
    assert len(client.search_model_versions("name = 'census'")) == before + 1


@pytest.mark.slow
def test_training_that_was_ended_goes_on_when_it_is_run_again(
    spark: SparkSession, census: Path, pipeline: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(pipeline["settings"].root)
    settings = census_settings(census, home, *FAST, "training.seed=5", "training.epochs=40")

    def cancel(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 2:
            spark.sparkContext.cancelAllJobs()

    monkeypatch.setattr(progress_display, "show", cancel)
    with pytest.raises(TrainingFailed, match="cancelled; run again to go on"):
        train(spark, settings)
    monkeypatch.undo()
    trained = train(spark, settings)
    assert (trained["epochs"], trained["restarts"]) == (40, 1)
    lines = (home / "runs" / trained["run_id"] / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["is_finished"] for event in events if event["event"] == "ended"] == [False, True]
    assert next(event["epoch"] for event in events if event["event"] == "resumed") >= 3
    client = runs.connect(settings.tracking, settings.root)
    assert client.get_run(trained["run_id"]).info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(trained["run_id"])} >= {"training.png", "config.yaml"}
    assert list((home / "runs" / "unfinished").iterdir()) == []


@pytest.mark.slow
def test_slices_of_a_promotion_are_those_of_the_raw_rows(
    spark: SparkSession, census: Path, pipeline: dict[str, Any]
) -> None:
    home = Path(pipeline["settings"].root)
    gate = "promotion.slices={columns: [sex, age], max_loss: 1.0}"
    settings = census_settings(census, home, *FAST, "training.seed=21", "registry.alias=''", gate)
    trained = train(spark, settings)
    report = promote(settings, trained["model_version"], spark=lambda: spark)
    by_sex, by_age = (check for check in report["checks"] if check["rule"].startswith("slices."))
    assert by_sex["figures"]["losses"].keys() == {"Female", "Male"}
    assert len(by_age["figures"]["losses"]) == 4
    assert by_sex["is_met"]
    assert by_age["is_met"]
    # Rows of both sexes together are all of the test rows: the loss over all is between those of the two.
    all_rows = pipeline["trained"]["metrics"]["test"]["accuracy"] - trained["metrics"]["test"]["accuracy"]
    assert min(by_sex["figures"]["losses"].values()) - 1e-9 <= all_rows
    assert all_rows <= max(by_sex["figures"]["losses"].values()) + 1e-9


@pytest.mark.slow
def test_training_ends_at_a_checkpoint_when_its_budget_does_and_goes_on_with_a_larger_one(
    spark: SparkSession, census: Path, pipeline: dict[str, Any], tmp_path: Path
) -> None:
    """A cent a second, and one cent: spent before the first epoch ends."""
    machines = tmp_path / "machines.yaml"
    machines.write_text('{currency: EUR, tiers: {m: {cores: 2, price_per_hour: 36, source: us, date: "2026-11-28"}}}')
    priced = (
        *FAST,
        "training.seed=13",
        "training.epochs=40",
        "registry.alias=''",
        "cost.tier=m",
        f"cost.machines={machines}",
    )
    home = Path(pipeline["settings"].root)
    before = set((home / "runs").glob("*/spent.json"))
    with pytest.raises(
        BudgetSpent, match=r"cost\.budget=0\.01: .* EUR for \d+ s of 1 x m are spent.* of step \d+ is kept"
    ):
        train(spark, census_settings(census, home, *priced, "cost.budget=0.01"))
    [file] = set((home / "runs").glob("*/spent.json")) - before
    spent = json.loads(file.read_text())
    settings = census_settings(census, home, *priced, "cost.budget=1000")
    trained = train(spark, settings)
    client = runs.connect(settings.tracking, settings.root)
    cost = versions.find(client, "census", trained["model_version"]).package.provenance["cost"]
    assert (cost["tier"], cost["currency"], cost["price_per_hour"]) == ("m", "EUR", 36.0)
    assert cost["seconds"] > spent["seconds"] > 0
    assert cost["amount"] == pytest.approx(cost["seconds"] / 100, abs=1e-5)
    assert trained["epochs"] == 40


def test_run_keeps_the_page_of_its_evaluation_and_a_command_makes_it_of_chosen_rows(
    pipeline: dict[str, Any], tmp_path: Path
) -> None:
    settings, trained = pipeline["settings"], pipeline["trained"]
    client = runs.connect(settings.tracking, settings.root)
    page = Path(client.download_artifacts(trained["run_id"], "evaluation.html", str(tmp_path))).read_text()
    assert f"census: evaluation of version {trained['model_version']}" in page
    assert f"{trained['metrics']['test']['accuracy']:.4f} [" in page
    assert "Learning curves" in page
    assert "integrated gradients" in page
    assert page.count("<br>row_id ") == 12
    assert "Husband" not in page  # no value of the data
    config, chosen = tmp_path / "census.yaml", tmp_path / "chosen.html"
    config.write_text(settings.to_yaml())
    first, second = predictions.read(trained["predictions"]["validation"]).row_id[[0, -1]]
    rows = f"{first}, {second}"
    evaluate.run([str(config)], output=str(chosen), split="validation", rows=rows, in_words=True)
    page = chosen.read_text()
    assert [int(row_id) for row_id in re.findall(r"<br>row_id (-?\d+)", page)] == [first, second]
    assert re.search(r"\d+ = [A-Z]", page)
    with pytest.raises(ExaminedError, match="row_id 5: no such row"):
        evaluate.run([str(config)], version="census@champion", output=str(chosen), rows="5")
    with pytest.raises(RegistryError, match="model census: no version or alias 99"):
        evaluate.run([str(config)], version="census/99", output=str(chosen))


@pytest.mark.slow
def test_example_of_an_own_model_trains_on_the_features(
    spark: SparkSession, pipeline: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "training.md").read_text(), re.M | re.S)
    (tmp_path / ".mlspark").mkdir()
    (tmp_path / ".mlspark" / "tables").symlink_to(Path(pipeline["settings"].root) / "tables")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(example, names)
    outcome = names["outcome"]
    assert outcome.rows_per_epoch == pipeline["trained"]["rows_per_epoch"]
    assert Path(outcome.checkpoint_uri).is_relative_to(tmp_path)


def test_training_before_preparing_is_refused(spark: SparkSession, small_census: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no feature table; run jobs/prepare"):
        train(spark, census_settings(small_census, tmp_path))


@pytest.mark.slow
def test_real_census_reaches_the_stated_accuracy_and_scores_equal_it(
    spark: SparkSession, whole_adult: Path, tmp_path: Path
) -> None:
    unlabelled = without_label(whole_adult, tmp_path / "unlabelled.csv")
    settings = census_settings(
        whole_adult, tmp_path / "home", f"scoring.source.path={unlabelled}", "scoring.source.has_label=false"
    )
    prepare(spark, settings)
    anew = census_settings(whole_adult, tmp_path / "home", "training.recovery.resume=false")
    reports = [train(spark, each) for each in (settings, anew)]
    evaluated = reports[0]["metrics"]["test"]
    assert evaluated["accuracy"] >= 0.853
    assert evaluated["roc_auc"] >= 0.908
    assert reports[0]["metrics"] == reports[1]["metrics"]  # the same seed, the same numbers
    one_rank = train(
        spark, census_settings(whole_adult, tmp_path / "home", "training.num_processes=1", "registry.alias=''")
    )
    assert one_rank["steps"] == reports[0]["steps"]
    assert one_rank["rows_per_epoch"] == reports[0]["rows_per_epoch"]
    assert one_rank["metrics"]["test"]["roc_auc"] == pytest.approx(evaluated["roc_auc"], abs=0.005)
    assert promote(settings)["verdict"] == "promoted"
    result = score(spark, settings)
    scores = tables.read(spark, result["output"]).toPandas()
    names = list(scores.columns[:14])
    assert scored_accuracy(whole_adult, scores, names) == (len(scores), evaluated["accuracy"])


def submit(job: str, *arguments: str, home: Path, command: str = "spark-submit") -> subprocess.CompletedProcess[str]:
    """Run a job as a user does, from the repository's root."""
    starter = [str(Path(sys.executable).with_name("spark-submit"))] if command == "spark-submit" else [sys.executable]
    environment = os.environ | {"MLSPARK_HOME": str(home)}
    if command == "spark-submit":
        environment["SPARK_CONF_DIR"] = "conf"
    return subprocess.run(
        [*starter, f"jobs/{job}.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["spark-submit", "python"])
def test_job_writes_its_report_and_nothing_on_standard_error(small_census: Path, tmp_path: Path, command: str) -> None:
    report = tmp_path / "report.json"
    done = submit(
        "prepare", "--config", "conf/census.yaml", "--set", f"sources.root={small_census}", "--report", str(report),
        home=tmp_path / "home", command=command,
    )  # fmt: skip
    # Neither Ivy's report nor "Broadcasting large task binary" of 14 features, see mlspark/spark_conf.
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(report.read_text())["rows_quarantined"] == 40
    assert "features: wrote version 0" in done.stdout


@pytest.mark.slow
def test_of_two_runs_at_once_one_writes_and_the_other_says_so(small_census: Path, tmp_path: Path) -> None:
    environment = os.environ | {"MLSPARK_HOME": str(tmp_path)}
    command = [
        sys.executable,
        "jobs/prepare.py",
        "--config",
        "conf/census.yaml",
        "--set",
        f"sources.root={small_census}",
    ]
    reports = [tmp_path / f"report{number}.json" for number in range(2)]
    runs = [
        subprocess.Popen([*command, "--report", str(report)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        for report in reports
    ]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    told = [json.loads(report.read_text()) for report in reports]
    assert sorted(report["already_done"] for report in told) == [False, True]
    assert {report["version"] for report in told} == {0}
    table = told[0]["table"]
    assert [commit.version for commit in tables.commits(table)] == [0]
    assert DeltaTable(table).to_pyarrow_table(columns=["row_id"]).num_rows == told[0]["rows_good"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["spark-submit", "python"])
def test_what_the_user_can_mend_exits_2_with_one_message(tmp_path: Path, command: str) -> None:
    failed = submit(
        "prepare",
        "--config",
        "conf/census.yaml",
        "--set",
        "sources.root=no/such/folder",
        home=tmp_path,
        command=command,
    )
    assert failed.returncode == 2
    assert "no/such/folder/adult/adult.data: no such file or folder" in failed.stderr
    assert "Traceback" not in failed.stderr + failed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "no.yaml"], "prepare: no.yaml: cannot be read"),
        (["--config", "conf/census.yaml", "--set", "training.epoch=1"], "unknown key, did you mean epochs?"),
        (["--config", "conf/census.yaml", "--set", "training.loss=mse"], "unknown key, did you mean task.loss?"),
        (["--config", "conf/census.yaml", "--report", "no/such/folder/r.json"], "the folder does not exist"),
        ([], "Missing option '--config'"),
    ],
)
def test_wrong_arguments_exit_2_before_spark_starts(tmp_path: Path, arguments: list[str], message: str) -> None:
    failed = submit("prepare", *arguments, home=tmp_path, command="python")
    assert failed.returncode == 2
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def equal_bits(spark: SparkSession, data: Path, home: Path, *overrides: str) -> int:
    """Hold batch scores, kept predictions, MLflow and single rows of a census model against each other; rows of the test."""
    import mlflow

    settings = census_settings(data, home, "scoring.model=challenger", *overrides)
    prepare(spark, settings)
    trained = train(spark, settings)
    scores = tables.read(spark, score(spark, settings)["output"]).toPandas().sort_values(["row_id", "probability"])
    client = runs.connect(settings.tracking, settings.root)
    package = versions.find(client, settings.registry.model_name, trained["model_version"]).package
    kept = predictions.read(trained["predictions"]["test"])
    expected = pd.DataFrame({"row_id": kept.row_id, **package.task.predictions(kept.outputs)})
    expected = expected.sort_values(["row_id", "probability"])
    raw = scores[list(package.scoring_contract.names)]
    served = mlflow.pyfunc.load_model(f"models:/{settings.registry.model_name}/{trained['model_version']}").predict(raw)
    predictor = Predictor(package)
    for name in ("row_id", "probability", "prediction"):
        assert scores[name].tolist() == expected[name].tolist(), name
    for name in ("probability", "prediction"):
        assert served[name].tolist() == expected[name].tolist(), name
        single = [predictor.predict(from_pandas(raw.iloc[[n]], predictor.contract))[name][0] for n in range(40)]
        assert single == expected[name].tolist()[:40], name
    return len(scores)


BOTH = pytest.mark.parametrize("model", ["tabular", "trees"])


@BOTH
def test_evaluation_batch_mlflow_and_single_rows_are_equal_bits(
    spark: SparkSession, tmp_path: Path, model: str
) -> None:
    settings = FAST if model == "tabular" else ("model.kind=trees", "model.num_rounds=30")
    assert equal_bits(spark, SAMPLE, tmp_path, *settings) == 600


@pytest.mark.slow
@BOTH
def test_equal_bits_of_the_whole_census(spark: SparkSession, whole_adult: Path, tmp_path: Path, model: str) -> None:
    trees = ("kind=trees", "num_rounds=2000", "learning_rate=0.05", "max_cat_to_onehot=64")
    settings = [f"model.{setting}" for setting in trees] if model == "trees" else []
    assert equal_bits(spark, whole_adult, tmp_path, *settings) == 16_281
