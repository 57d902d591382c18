"""The score stage: rows in any layout that the contract knows become predictions, and every one is accounted for."""

import csv
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.contracts.contract import ColumnRule, SchemaPolicy
from mlspark.errors import (
    ConfigError,
    ContractError,
    RegistryError,
    SourceError,
    StorageError,
    TableError,
    TrackingError,
)
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import batch
from mlspark.scoring.explain import Explainer
from mlspark.scoring.predictor import Predictor
from mlspark.settings.pipeline import Settings
from mlspark.stages import explanation
from mlspark.stages.score import score
from mlspark.tracking import runs

from ..conftest import census_settings
from ..registry.conftest import kept_stores
from ..registry.example import BIG, ROW, contract, package, rows

CHANGES: tuple[dict[str, Any], ...] = (
    {"small": 5},
    {"small": 6, "text": None},
    {"small": 7, "number": None, "flag": None},
    {"small": 8, "big": BIG - 1, "real": 999.5},
)
NAMES = [column.name for column in contract().columns]


def settings(home: Path, source: Path, *overrides: str) -> Settings:
    """A pipeline that scores `source` with the newest example."""
    scored = (f"scoring.source.path={source}", "scoring.source.comment=''", "scoring.source.missing=''")
    return census_settings(home, home / "home", "name=example", *scored, *overrides)


def register(into: Settings, made: Package) -> int:
    client = runs.connect(into.tracking, into.root)
    experiment = client.get_experiment_by_name(into.tracking.experiment)
    run_id = client.create_run(experiment.experiment_id).info.run_id
    return versions.register(client, made, run_id=run_id, name=into.registry.model_name, alias="champion")


def with_policy(made: Package, **policy: Any) -> Package:
    model = {name: made.files[name] for name in ("model.json", "weights.safetensors")}
    changed = made.contract.model_copy(update={"schema_policy": SchemaPolicy(**policy)})
    return Package.pack(model=model, encoder=made.encoder, contract=changed, task=made.task, provenance=made.provenance)


def write(file: Path, columns: Sequence[str], *, header: bool = False, label: str = "yes") -> Path:
    """Write CHANGES of ROW as CSV, the label among the columns if it is named."""
    with file.open("w", newline="") as stream:
        lines = csv.writer(stream)
        if header:
            lines.writerow(columns)
        for change in CHANGES:
            row = ROW | change | {"label": label, "moment": "2024-02-29 18:30:01", "more": "x"}
            row["vector"] = "[0.5, -1.0]"
            lines.writerow(
                [
                    "" if row[name] is None else str(row[name]).lower() if name == "flag" else row[name]
                    for name in columns
                ]
            )
    return file


def probabilities(spark: SparkSession, report: dict[str, Any]) -> dict[int, float]:
    scored = tables.read(spark, report["output"]).where(f"score_id = '{_id(report)}'")
    return {row["small"]: row["probability"] for row in scored.collect()}


def _id(report: dict[str, Any]) -> str:
    return next(
        commit.metadata["id"]
        for commit in tables.commits(report["output"])
        if commit.version == report["output_version"]
    )


EXPECTED = dict(
    zip(
        (change["small"] for change in CHANGES),
        Predictor(package(joined=False)).predict(rows(*CHANGES))["probability"].tolist(),
        strict=True,
    )
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    register(settings(folder, folder), package(joined=False))
    return folder


def test_headerless_source_has_the_label_where_the_contract_has_it(spark: SparkSession, home: Path) -> None:
    """The label is the second of the columns; it was taken for the last one, and the values were shifted."""
    assert NAMES.index("label") == 1
    report = score(spark, settings(home, write(home / "labelled.csv", NAMES)))
    assert (report["rows_read"], report["rows_scored"], report["schema_differences"]) == (4, 4, {})
    assert probabilities(spark, report) == EXPECTED
    scores = tables.read(spark, report["output"])
    assert {row["label"] for row in scores.collect()} == {"yes"}
    unlabelled = write(home / "unlabelled.csv", [name for name in NAMES if name != "label"])
    second = score(spark, settings(home, unlabelled, "scoring.source.has_label=false"))
    assert probabilities(spark, second) == EXPECTED
    rows_of = tables.read(spark, report["output"])
    assert rows_of.count() == 8
    assert rows_of.where("label is null").count() == 4
    # Joining back: the same row has the same id, and the contract's columns are there.
    assert rows_of.select("row_id").distinct().count() == 4
    assert set(NAMES) <= set(rows_of.columns)


def test_scores_can_be_joined_back_to_the_rows_they_are_of(spark: SparkSession, home: Path) -> None:
    """Equal rows have equal ids; file and number tell them apart, and columns that no contract names go along."""
    folder = home / "several"
    folder.mkdir()
    names = [*NAMES, "customer-id"]
    first = write(folder / "a.csv", NAMES).read_text().splitlines()
    for file, count in (("b.csv", 1), ("a.csv", 4)):
        lines = [f"{line},{file}/{at}" for at, line in enumerate(first * count)]
        lines.insert(2, f"{first[0].replace('red', 'pink')},bad")
        (folder / file).write_text("\n".join([",".join(names), *lines]) + "\n")
    overrides = ("scoring.source.header=true", 'scoring.keep=["customer-id", "label", "small"]')
    report = score(spark, settings(home, folder, *overrides))
    assert (report["rows_scored"], report["rows_quarantined"], report["schema_differences"]) == (20, 2, {})
    rows_of = tables.read(spark, report["output"]).where(f"score_id = '{_id(report)}'").orderBy("row_number").collect()
    # The bad row has a number, too: 2 of a.csv's 17 rows, and 17 + 2.
    assert [row["row_number"] for row in rows_of] == [0, 1, *range(3, 17), 17, 18, 20, 21]
    assert [row["source_file"].rsplit("/")[-1] for row in rows_of] == ["a.csv"] * 16 + ["b.csv"] * 4
    assert [row["customer_id"] for row in rows_of] == [
        *(f"a.csv/{at}" for at in range(16)),
        *(f"b.csv/{at}" for at in range(4)),
    ]
    assert {row["label"] for row in rows_of} == {"yes"}
    assert score(spark, settings(home, folder, *overrides))["already_done"]


def test_log_has_ranges_of_what_follows_the_order_of_rows(spark: SparkSession, tmp_path: Path) -> None:
    names = [*NAMES, "customer"]
    file = write(tmp_path / "rows.csv", NAMES)
    lines = [",".join(names), *(f"{line},{at}" for at, line in enumerate(file.read_text().splitlines()))]
    file.write_text("\n".join(lines) + "\n")
    into = settings(tmp_path, file, "scoring.source.header=true", "scoring.keep=[customer]")
    register(into, package(joined=False))
    report = score(spark, into)
    files = pa.table(DeltaTable(report["output"]).get_add_actions(flatten=True))
    expected = {"day", "moment", "customer", "source_file", "row_number", "model_version"}
    assert {name.removeprefix("min.") for name in files.column_names if name.startswith("min.")} == expected
    assert sum(files.column("num_records").to_pylist()) == report["rows_scored"] == len(CHANGES)
    assert tables.read(spark, report["output"]).where("row_number >= 2 and small > 6").count() == 2


def test_keys_have_ranges_arrays_and_flags_do_not() -> None:
    made = package(joined=False)
    keyed = made.contract.model_copy(update={"unique_key": ("small", "flag")})
    other = Package.pack(
        model={name: made.files[name] for name in ("model.json", "weights.safetensors")},
        encoder=made.encoder,
        contract=keyed,
        task=made.task,
        provenance=made.provenance,
    )
    kept = [ColumnRule(name="points", type="array<float>"), ColumnRule(name="model_version", type="string")]
    own = ["source_file", "row_number", "model_version"]
    assert batch.ranged_names(other, kept) == ["small", "day", "moment", "raw_model_version", *own]


@pytest.mark.parametrize(
    ("header", "keep", "message"),
    [
        (True, "[custmer]", r"scoring\.keep: custmer: not a column of the source \(small, label"),
        (False, "[customer]", r"scoring\.keep: customer: the rows of scoring\.source have no names; leave it out"),
        (True, "[Probability]", r"scoring\.keep: Probability: the score table has columns of this name"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(
    spark: SparkSession, home: Path, header: bool, keep: str, message: str
) -> None:
    file = write(home / "kept.csv", NAMES, header=header)
    if keep == "[Probability]":
        file.write_text("\n".join(f"{line},Probability" for line in file.read_text().splitlines()))
    into = settings(home, file, f"scoring.source.header={str(header).lower()}", f"scoring.keep={keep}")
    with pytest.raises(ConfigError, match=message):
        score(spark, into)


def test_label_of_any_value_is_not_looked_at(spark: SparkSession, home: Path) -> None:
    report = score(spark, settings(home, write(home / "odd.csv", NAMES, label="no such class")))
    assert (report["rows_scored"], report["rows_quarantined"]) == (4, 0)


def test_labelled_source_is_not_refused_for_its_label(spark: SparkSession, tmp_path: Path) -> None:
    shuffled = [*NAMES[5:], *NAMES[:5]]
    for_source = settings(tmp_path, write(tmp_path / "named.csv", shuffled, header=True), "scoring.source.header=true")
    register(for_source, with_policy(package(joined=False), extra="refuse"))
    report = score(spark, for_source)
    assert probabilities(spark, report) == EXPECTED
    assert report["schema_differences"] == {"reordered": True}
    more = settings(
        tmp_path, write(tmp_path / "more.csv", [*shuffled, "more"], header=True), "scoring.source.header=true"
    )
    with pytest.raises(ContractError, match=r"extra columns \(more\)"):
        score(spark, more)


def test_differences_of_columns_are_reported(spark: SparkSession, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = write(home / "differs.csv", [*NAMES, "more"], header=True)
    report = score(spark, settings(home, named, "scoring.source.header=true"))
    assert report["schema_differences"] == {"extra": ["more"]}
    assert "columns differ from contract example: {'extra': ['more']}" in caplog.text
    again = score(spark, settings(home, named, "scoring.source.header=true"))
    assert (again["already_done"], again["schema_differences"]) == (True, {"extra": ["more"]})


def test_source_that_changes_while_it_is_read_is_refused(
    spark: SparkSession, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(home / "changing.csv", NAMES)
    into = settings(home, file)
    before = tables.latest(into.table("scores"))
    scored = batch.scored

    def change(*arguments: Any, **named: Any) -> Any:
        with file.open("a") as stream:
            stream.write("\n")
        return scored(*arguments, **named)

    monkeypatch.setattr(batch, "scored", change)
    with pytest.raises(
        SourceError, match=r"changing.csv: changed while it was read .*; nothing was written. Run again"
    ):
        score(spark, into)
    assert tables.latest(into.table("scores")) == before


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_scores_have_the_columns_of_the_task(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    made = package(kind, joined=False)
    into = settings(tmp_path, write(tmp_path / "rows.csv", NAMES, label="a" if kind == "multiclass" else "1.5"))
    register(into, made)
    report = score(spark, into)
    scores = tables.read(spark, report["output"])
    types = {field.name: field.dataType.simpleString() for field in scores.schema}
    assert {name: types[name] for name in made.task.prediction_types} == made.task.prediction_types
    collected = sorted(scores.collect(), key=lambda row: row["small"])
    expected = Predictor(made).predict(rows(*CHANGES))
    for name, values in expected.items():
        assert [row[name] for row in collected] == pa.array(values.tolist()).to_pylist()


def test_table_of_scores_of_another_kind_is_refused(spark: SparkSession, home: Path) -> None:
    file = write(home / "kinds.csv", NAMES)
    into = settings(home, file)
    score(spark, into)
    try:
        register(into, package("multiclass", joined=False))
        with pytest.raises(
            TableError, match=r"scores of another kind \(probability is there, now it is not\); move the table"
        ):
            score(spark, into)
    finally:
        runs.connect(into.tracking, into.root).set_registered_model_alias("example", "champion", "1")


def test_columns_called_like_those_of_scoring_stand_beside_them(spark: SparkSession, tmp_path: Path) -> None:
    """Ours keep their names; theirs have `raw_` in front, and the predictions are those of the model without them."""
    made = package(joined=False)
    theirs = ("prediction", "Row_ID", "model_version", "raw_row_id", "score_id", "target", "is_padding")
    columns = (*made.contract.columns, *(ColumnRule(name=name, type="int") for name in theirs))
    model = {name: made.files[name] for name in ("model.json", "weights.safetensors")}
    named = made.contract.model_copy(update={"columns": columns})
    file = write(tmp_path / "rows.csv", NAMES)
    file.write_text("".join(f"{line},{','.join('1234567')}\n" for line in file.read_text().splitlines()))
    into = settings(tmp_path, file)
    register(
        into,
        Package.pack(model=model, encoder=made.encoder, contract=named, task=made.task, provenance=made.provenance),
    )
    report = score(spark, into)
    written = {
        "prediction": "raw_prediction",
        "Row_ID": "raw_raw_Row_ID",
        "model_version": "raw_model_version",
        "score_id": "raw_score_id",
    }
    assert report["renamed"] == written
    assert probabilities(spark, report) == EXPECTED
    scores = tables.read(spark, report["output"])
    for row in scores.collect():
        assert [row[written.get(name, name)] for name in theirs] == [1, 2, 3, 4, 5, 6, 7]
        assert (row["model_version"], row["score_id"]) == (report["model_version"], _id(report))
    assert scores.select("row_id").distinct().count() == 4
    again = score(spark, into)
    assert (again["already_done"], again["renamed"]) == (True, written)


@pytest.mark.filterwarnings("error:.*arrow UDF:UserWarning")  # jobs write nothing on standard error
def test_threshold_is_the_version_s(spark: SparkSession, tmp_path: Path) -> None:
    into = settings(tmp_path, write(tmp_path / "rows.csv", NAMES))
    for threshold, expected in ((0.001, "yes"), (0.999, "no")):
        register(into, package(joined=False, threshold=threshold))
        report = score(spark, into)
        scores = tables.read(spark, report["output"]).where(f"model_version = {report['model_version']}")
        assert {row["prediction"] for row in scores.collect()} == {expected}


def test_bad_rows_are_quarantined_with_their_reasons(spark: SparkSession, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", NAMES)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines * 5, lines[0].replace("red", "pink"), lines[3].replace("39", "-93")]) + "\n")
    into = settings(tmp_path, file)
    register(into, package(joined=False))
    report = score(spark, into)
    assert (report["rows_read"], report["rows_scored"], report["rows_quarantined"]) == (22, 20, 2)
    assert report["reasons"] == {"small_is_less": 1, "text.allowed": 1}


def test_row_whose_output_is_no_number_is_named_and_nothing_is_written(spark: SparkSession, home: Path) -> None:
    file = write(home / "far.csv", NAMES)
    file.write_text(file.read_text().replace("999.5", "-1e300"))
    into = settings(home, file, "name=far", "registry.model_name=example")
    with pytest.raises(
        ContractError, match=r"^real\.output: the model's output is .*`min` and a `max`.*no score was written$"
    ):
        score(spark, into)
    assert not tables.exists(into.table("scores"))


def test_changed_version_is_refused_before_anything_is_written(spark: SparkSession, tmp_path: Path) -> None:
    into = settings(tmp_path, write(tmp_path / "rows.csv", NAMES))
    register(into, package(joined=False))
    [weights] = (tmp_path / "home").rglob("weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RegistryError, match=r"weights.safetensors: changed since the version was registered"):
        score(spark, into)
    assert not tables.exists(into.table("scores"))


def test_mlflow_that_is_away_is_named_and_nothing_is_written(spark: SparkSession, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = (f"tracking.uri=http://127.0.0.1:{port}", "tracking.retry_seconds=0.3")
    into = settings(home, write(home / "away.csv", NAMES), *server, f"storage.root={home}/away")
    with kept_stores(), pytest.raises(TrackingError, match=r"MLflow did not open the .* for 0\.3 s: .*tracking\.uri"):
        score(spark, into)
    assert not (home / "away").exists()


def test_mlflow_is_not_missed_once_the_version_is_found(
    spark: SparkSession, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = settings(home, write(home / "later.csv", NAMES))
    store, scored = Path(into.root) / "mlflow", batch.scored

    def go_away(*arguments: Any, **named: Any) -> Any:
        store.rename(home / "elsewhere")
        return scored(*arguments, **named)

    monkeypatch.setattr(batch, "scored", go_away)
    try:
        report = score(spark, into)
    finally:
        (home / "elsewhere").rename(store)
    assert probabilities(spark, report) == EXPECTED


def test_version_whose_files_are_gone_is_named(spark: SparkSession, tmp_path: Path) -> None:
    into = settings(tmp_path, write(tmp_path / "rows.csv", NAMES))
    register(into, package(joined=False))
    for folder in [*Path(into.root).rglob("package")]:
        shutil.rmtree(folder)
    with pytest.raises(
        RegistryError, match=r"^model example version 1: .*manifest\.json is missing; register the model"
    ):
        score(spark, into)


def test_place_of_the_scores_is_tried_before_a_row_is_read(
    spark: SparkSession, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = settings(home, write(home / "place.csv", NAMES), f"storage.root={home}/place")
    register(into, package(joined=False))
    monkeypatch.setattr(batch, "contract_of_rows", None)  # calling it would fail
    for kind in ("scores", "scores_quarantine"):
        place = Path(into.table(kind))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        with pytest.raises(StorageError, match=rf"^{place}: cannot be written \(.*; nothing was written$") as refused:
            score(spark, into)
        place.unlink()
        assert "\n" not in str(refused.value)
    assert not tables.exists(into.table("scores"))


def test_several_versions_score_rows_that_are_read_once(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "rows.csv", NAMES)
    into = settings(tmp_path, file, "scoring.model=1", "scoring.beside=[2, champion]")
    made = {number: package(joined=False, threshold=threshold) for number, threshold in ((1, 0.5), (2, 0.001))}
    assert [register(into, each) for each in made.values()] == [1, 2]
    with caplog.at_level("INFO"):
        report = score(spark, into)
    assert caplog.text.count("score: read 4 rows, kept 4") == 1
    assert (report["model_version"], [each["model_version"] for each in report["beside"]]) == (1, [2])
    scores = tables.read(spark, report["output"]).collect()
    for number, each in made.items():
        expected = Predictor(each).predict(rows(*CHANGES))["prediction"].tolist()
        found = {row["small"]: row["prediction"] for row in scores if row["model_version"] == number}
        assert found == dict(zip((change["small"] for change in CHANGES), expected, strict=True))
    assert len(scores) == 2 * len(CHANGES)
    again = score(spark, into)
    assert (again["already_done"], again["beside"][0]["already_done"]) == (True, True)
    assert score(spark, settings(tmp_path, file, "scoring.model=2"))["already_done"]
    register(into, with_policy(package(joined=False), extra="refuse"))
    with pytest.raises(ConfigError, match=r"scoring.beside: version 3 of model example has another contract"):
        score(spark, settings(tmp_path, file, "scoring.model=1", "scoring.beside=[3]"))


def test_rows_go_to_python_whole_where_spark_has_no_functions_of_arrow(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Spark 4.1; the scores are the same."""
    monkeypatch.delattr("pyspark.sql.functions.arrow_udf")
    into = settings(tmp_path, write(tmp_path / "rows.csv", NAMES))
    register(into, package(joined=False))
    assert probabilities(spark, score(spark, into)) == EXPECTED


@pytest.mark.slow
def test_explained_rows_are_the_scored_ones_and_the_refused_ones(spark: SparkSession, home: Path) -> None:
    file = write(home / "explained.csv", NAMES, header=True)
    lines = file.read_text().splitlines()
    bad = lines[1].replace("red", "pink")  # 1 of 13: the contract takes a tenth
    file.write_text("\n".join([*lines[:3], bad, *lines[3:], *lines[1:] * 2]) + "\n")
    pipeline = settings(home, file, "scoring.source.header=true")
    report = score(spark, pipeline)
    scored = tables.read(spark, report["output"]).where(f"score_id = '{_id(report)}'").collect()
    expected = {row["row_number"]: (row["row_id"], row["probability"], row["prediction"]) for row in scored}
    model = ModelVersion("example", 1, package(joined=False))
    tensors, random = model.package.encoder.tensors(model.package.task), np.random.default_rng(0)
    others = {
        "dense": random.normal(size=(20, tensors.num_dense)).astype(np.float32),
        "ids": np.ones((20, len(tensors.cardinalities)), np.int64),
    }
    of_version, source = Explainer(model.package, others), pipeline.scoring.source
    assert source is not None

    def explained(**options: Any) -> tuple[explanation.ExplainedRow, ...]:
        raw = explanation.of_source(spark, model, source, (), root=pipeline.sources.root, **options)
        return explanation.explained(model, of_version, raw, baseline="other rows").rows

    rows = explained()
    predicted = {row.number: (row.row_id, *row.prediction.values()) for row in rows if not row.refused}
    assert predicted == expected
    [refused] = [row for row in rows if row.refused]
    assert (refused.number, [broken.reason for broken in refused.refused]) == (2, list(report["reasons"]))
    assert str(refused.refused[0]) == "text.allowed: row 2 has 'pink'"
    assert all(abs(row.error) < 1e-3 for row in rows)
    assert [row.number for row in explained(most=3)] == [0, 1, 2]
    alike = [number for number, (row_id, *_) in sorted(expected.items()) if row_id == expected[3][0]]
    assert [row.number for row in explained(row_ids=[expected[3][0]])] == alike == [3, 7, 11]
    with pytest.raises(ConfigError, match=r"--row-id 5: no good row of .*explained.csv has it"):
        explained(row_ids=[5])
