import json
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from pydantic import TypeAdapter
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mlspark.contracts import check_spark
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import REASONS
from mlspark.errors import ConfigError
from mlspark.intake.rows import take_in
from mlspark.settings import loading
from mlspark.sources import catalog, typed_rows
from mlspark.sources.settings import SourceSettings
from mlspark.sources.source import Part, Source

ROOT = Path(__file__).parents[2]
HIVE = {"kind": "hive", "table": "lake.people", "metastore": "thrift://one:9083"}
JOIN = {
    "name": "clicks", "source": HIVE, "contract": "schemas/clicks.json", "keys": {"a": "b"}, "label_time": "at",
    "event_time": "at", "columns": ["page"],
}  # fmt: skip


def spark_settings(*overrides: str) -> dict[str, str]:
    settings = loading.load([str(ROOT / "conf" / "census.yaml")], overrides)
    return catalog.spark_settings(settings.all_sources.values())


@pytest.mark.parametrize(
    "override",
    [
        *(f"sources.{name}={json.dumps(HIVE)}" for name in ("learn", "validation", "test")),
        f"scoring.source={json.dumps(HIVE)}",
        f"joins={json.dumps([JOIN])}",
    ],
)  # fmt: skip
def test_any_hive_table_brings_its_metastore(override: str) -> None:
    assert spark_settings(override) == {
        "spark.sql.catalogImplementation": "hive",
        "spark.hadoop.hive.metastore.uris": "thrift://one:9083",
    }


def test_two_metastores_are_refused() -> None:
    other = json.dumps(HIVE | {"metastore": "thrift://two:9083"})
    with pytest.raises(ConfigError, match="metastores thrift://one:9083 and thrift://two:9083: a job can use one"):
        spark_settings(f"sources.learn={json.dumps(HIVE)}", f"sources.validation={other}")


class CountSettings(SourceSettings):
    """The numbers below one."""

    kind: Literal["count"]
    below: int


def find(spark: SparkSession, settings: CountSettings, *, root: str) -> Source:
    return Source(f"count:{settings.below}", settings, (Part("numbers", str(settings.below)),))


def columns(spark: SparkSession, source: Source) -> StructType:
    return spark.range(0).schema


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    assert isinstance(source.settings, CountSettings)
    return typed_rows.conformable(spark.range(source.settings.below), source, contract, file=F.lit(source.uri))


def counting_module() -> ModuleType:
    """What the file of a new kind holds."""
    module = ModuleType("count")
    for name, value in {
        "Settings": CountSettings, "HAS_TYPES": True, "PLACE": "below", "EXTENSIONS": (), "find": find,
        "columns": columns, "read": read,
    }.items():  # fmt: skip
        setattr(module, name, value)
    return module


def test_a_further_kind_is_one_file_and_one_line(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.READERS, "count", counting_module())
    settings = TypeAdapter(catalog.union(catalog.READERS)).validate_python(
        {"kind": "count", "below": 5, "filter": "id > 0"}
    )
    source = catalog.find(spark, settings, root="")
    contract = Contract(
        name="numbers",
        max_quarantined_share=0.5,
        columns=(ColumnRule(name="id", type="bigint", nullable=False, max=3),),
    )
    with take_in(spark, {"learn": source}, contract) as taken:
        assert taken.account.totals == {"rows_read": 4, "rows_good": 3, "rows_quarantined": 1}
        assert sorted(row.id for row in taken.good.collect()) == [1, 2, 3]
        [bad] = taken.rows.where(check_spark.is_bad()).collect()
        assert [(reason.column, reason.rule, reason.value) for reason in bad[REASONS]] == [("id", "max", "4")]
