import json
from pathlib import Path

import pytest

from mlspark import config
from mlspark.errors import ConfigError
from mlspark.sources import catalog

ROOT = Path(__file__).parents[2]
HIVE = {"kind": "hive", "table": "lake.people", "metastore": "thrift://one:9083"}
JOIN = {
    "name": "clicks", "source": HIVE, "contract": "schemas/clicks.json", "keys": {"a": "b"}, "label_time": "at",
    "event_time": "at", "columns": ["page"],
}  # fmt: skip


def spark_settings(*overrides: str) -> dict[str, str]:
    return catalog.spark_settings(config.load([str(ROOT / "conf" / "census.yaml")], overrides))


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
