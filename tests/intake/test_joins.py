"""Joined sources: what was known before each row reaches its features, and every joined row is accounted for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession

from mlspark import tables
from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError, ContractError, FeatureError
from mlspark.features import prepared
from mlspark.intake import join_types
from mlspark.intake import joins as joining
from mlspark.intake.joins import Join
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.check import check_prepare
from mlspark.stages.prepare import prepare

VISITS = ["ann,2024-03-01,2,yes", "ann,2024-03-05,4,no", "bob,2024-03-05,6,no", "cyd,2024-03-09,8,yes"]
CLICKS = [
    "ann,2024-02-28 10:00:00,3",
    "ann,2024-03-01 00:00:00,50",  # at the very moment of a visit: must not be used for it
    "ann,2024-03-04 12:00:00,7",
    "bob,2024-03-05 00:00:01,9",  # after bob's visit
    "cyd,2024-01-01 00:00:00,1",  # older than a week
    "cyd,later,5",  # bad
]
VISIT_CONTRACT = {
    "name": "visits",
    "label": "bought",
    "columns": [
        {"name": "person", "type": "string", "nullable": False},
        {"name": "day", "header": "visit-day", "type": "date", "nullable": False},
        {"name": "pages", "type": "int"},
        {"name": "bought", "type": "string", "nullable": False, "allowed": ["yes", "no"]},
    ],
}
CLICK_CONTRACT = {
    "name": "clicks",
    "max_quarantined_share": 0.5,
    "columns": [
        {"name": "who", "header": "who-id", "type": "string", "nullable": False},
        {"name": "at", "type": "timestamp", "nullable": False},
        {"name": "seconds", "type": "int"},
    ],
}
SETTINGS = {
    "name": "visits",
    "sources": {"learn": {"kind": "csv", "path": "visits.csv"}},
    "split": {"validation_share": 0.0},
    "joins": [
        {
            "name": "clicks",
            "source": {"kind": "csv", "path": "clicks.csv"},
            "keys": {"person": "who"},
            "label_time": "day",
            "event_time": "at",
            "columns": ["seconds"],
            "max_age_seconds": 30 * 86400,
            "aggregates": [
                {"function": "count", "window_seconds": 7 * 86400},
                {"function": "mean", "column": "seconds", "window_seconds": 7 * 86400},
            ],
        }
    ],
    "task": {"kind": "binary", "target": "bought", "classes": ["no", "yes"]},
    "features": {
        "inputs": [
            {
                "kind": "number",
                "columns": ["pages", "clicks_seconds", "count_clicks_7d", "mean_clicks_seconds_7d"],
                "scale": "none",
                "impute": "constant",
                "fill": -1,
            }
        ],
    },
}


OURS = "the column of header 'visit-day' is called `day`"
THEIRS = "the column of header 'who-id' is called `who`"


@pytest.fixture
def visits(tmp_path: Path) -> Any:
    """Writes the files; returns what gives the settings, some of them changed."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "visits.csv").write_text("\n".join(VISITS) + "\n")
    (data / "clicks.csv").write_text("\n".join(CLICKS) + "\n")
    for contract in (VISIT_CONTRACT, CLICK_CONTRACT):
        (tmp_path / f"{contract['name']}.json").write_text(json.dumps(contract))

    def settings(**of_join: Any) -> Settings:
        join = {**SETTINGS["joins"][0], "contract": str(tmp_path / "clicks.json"), **of_join}
        file = tmp_path / "visits.yaml"
        file.write_text(yaml.safe_dump({**SETTINGS, "joins": [join], "contract": str(tmp_path / "visits.json")}))
        return loading.load([str(file)], [f"storage.root={tmp_path / 'home'}", f"sources.root={data}"])

    return data, settings


def types_of_spark(spark: SparkSession, joins: Sequence[Join], contract: Contract) -> dict[str, str]:
    """Each new column -> its type, as Spark finds it for frames without rows."""

    def empty(of: Contract) -> DataFrame:
        return spark.createDataFrame([], ", ".join(f"`{column.name}` {column.type}" for column in of.columns))

    attached = joining.attach(empty(contract), {join.settings.name: empty(join.contract) for join in joins}, joins)
    return {field.name: field.dataType.simpleString() for field in attached.schema if field.name not in contract.types}


def test_rows_get_what_was_known_before_them(spark: SparkSession, visits: Any) -> None:
    data, settings = visits
    found = joining.find(spark, settings().joins, root=str(data))
    contract = contracts.load(settings().contract)
    assert join_types.declared(settings().joins, contract) == types_of_spark(spark, found, contract)
    report = prepare(spark, settings())
    rows = tables.read(spark, report["table"]).select(
        "pages", "clicks_seconds", "count_clicks_7d", "mean_clicks_seconds_7d"
    )
    assert sorted(map(tuple, rows.collect())) == [
        (2.0, 3.0, 1.0, 3.0),  # ann, 1 March: not the click at midnight
        (4.0, 7.0, 3.0, 20.0),  # ann, 5 March
        (6.0, -1.0, 0.0, -1.0),  # bob: his click came a second later
        (8.0, -1.0, 0.0, -1.0),  # cyd: clicked too long ago
    ]
    assert (report["rows_read"], report["rows_good"], report["rows_quarantined"]) == (4, 4, 0)
    clicks = report["joins"]["clicks"]
    assert (clicks["rows_read"], clicks["rows_good"], clicks["rows_quarantined"]) == (6, 5, 1)
    assert clicks["reasons"] == {"at.type": 1}
    assert clicks["known"] == "event_time"
    [bad] = prepared.read_quarantine(spark, settings().table("features"), settings().table("quarantine")).collect()
    assert (bad.source, bad.raw) == ("clicks", "cyd,later,5")
    assert prepare(spark, settings())["already_done"]
    with (data / "clicks.csv").open("a") as file:
        file.write("bob,2024-03-04 00:00:00,11\n")
    again = prepare(spark, settings())
    assert not again["already_done"]
    assert tables.read(spark, again["table"]).where("pages = 6 AND clicks_seconds = 11").count() == 1


def test_report_says_when_days_are_known_and_how_many_rows_have_no_key(spark: SparkSession, visits: Any) -> None:
    """A day's total, joined on the morning of that day, would be of its evening."""
    data, settings = visits
    days = {**CLICK_CONTRACT, "columns": [dict(column) for column in CLICK_CONTRACT["columns"]]}
    days["columns"][1]["type"] = "date"
    Path(settings().joins[0].contract).write_text(json.dumps(days))
    (data / "clicks.csv").write_text("ann,2024-03-01,50\nann,2024-02-28,3\nann,2024-02-29,4\n")
    (data / "visits.csv").write_text("\n".join([VISITS[0], *(f",2024-03-0{day},1,no" for day in (1, 2, 3))]) + "\n")
    visit = json.loads(json.dumps(VISIT_CONTRACT))
    del visit["columns"][0]["nullable"]
    Path(settings().contract).write_text(json.dumps(visit))
    by_person = loading.override(settings(), {"split.key": ["person"]}, source="test")
    report = prepare(spark, by_person)
    assert report["joins"]["clicks"]["known"] == "end of day (UTC)"
    assert report["sources"]["learn"]["without_split_key"] == 3
    [row] = tables.read(spark, report["table"]).where("pages = 2").collect()
    assert (row["clicks_seconds"], row["count_clicks_7d"]) == (4.0, 2.0)


@pytest.mark.parametrize(
    ("of_join", "exception", "message"),
    [
        ({"keys": {"name": "who"}}, FeatureError, r"joins: clicks: .*name"),
        ({"keys": {"person": "whom"}}, FeatureError, r"joins: clicks: .*whom"),
        ({"label_time": "pages"}, FeatureError, r"joins: clicks: .*pages"),
        ({"columns": ["minutes"]}, FeatureError, r"joins: clicks: .*minutes"),
        (
            {"event_time": "seconds"},
            FeatureError,
            r"joins: clicks: event_time: seconds is int, expected date or timest",
        ),
        (
            {"aggregates": [{"function": "max", "column": "x", "window_seconds": 1}]},
            FeatureError,
            r"aggregates: x: not ",
        ),
        ({"keys": {"visit-day": "who"}}, FeatureError, rf"keys: visit-day: {OURS}"),
        ({"label_time": "visit-day"}, FeatureError, rf"joins: clicks: label_time: visit-day: {OURS}"),
        ({"keys": {"person": "who-id"}}, FeatureError, rf"joins: clicks: keys: who-id: {THEIRS}"),
        ({"event_time": "who-id"}, FeatureError, rf"event_time: who-id: {THEIRS}"),
        ({"columns": ["who-id"]}, FeatureError, rf"columns: who-id: {THEIRS}"),
        (
            {"aggregates": [{"function": "max", "column": "who-id", "window_seconds": 1}]},
            FeatureError,
            rf"aggregates: who-id: {THEIRS}",
        ),
        ({"contract": "none.json"}, ContractError, r"contract none.json: cannot be read"),
        ({"name": "taps"}, FeatureError, r"number .*clicks_seconds: not a column of contract visits"),
    ],
)
def test_joins_that_do_not_fit_are_refused_before_anything_is_read(
    visits: Any, tmp_path: Path, of_join: dict[str, Any], exception: type, message: str
) -> None:
    _, settings = visits
    with pytest.raises(exception, match=message):
        check_prepare(settings(**of_join))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("function", ["count", "sum", "mean", "min", "max", "distinct", "last"])
@pytest.mark.parametrize("column", ["seconds", "who", "at"])
def test_types_of_joined_columns_are_known_without_spark(
    spark: SparkSession, visits: Any, function: str, column: str
) -> None:
    data, settings = visits
    if function in ("sum", "mean") and column != "seconds":
        pytest.skip("a sum is of numbers")
    aggregate = {"function": function, "column": column, "window_seconds": 3600}
    joins = settings(columns=["at", "who"], aggregates=[aggregate]).joins
    contract = contracts.load(settings().contract)
    found = types_of_spark(spark, joining.find(spark, joins, root=str(data)), contract)
    assert join_types.declared(joins, contract) == found


def test_a_join_cannot_be_called_like_a_source_of_the_pipeline(visits: Any) -> None:
    _, settings = visits
    with pytest.raises(ConfigError, match="joins: learn: each name once, and none of learn, validation, test, score"):
        settings(name="learn")
