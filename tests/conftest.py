"""What all tests share: one Spark session, a small census."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before anything starts a JVM or a worker: loopback only, this very Python, these very sources.
ROOT = Path(__file__).parents[1]
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
for name in ("MLSPARK_HOME", "MLFLOW_TRACKING_URI", "SPARK_CONF_DIR"):
    os.environ.pop(name, None)

import pytest  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

from mlspark import config, session  # noqa: E402
from mlspark.config import Settings  # noqa: E402
from mlspark.datasets import census_like  # noqa: E402

REAL_DATA = Path(os.environ.get("MLSPARK_DATA", ROOT / "data")).resolve()


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    settings = session.defaults() | {
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.memory": "2g",
        "spark.log.level": "ERROR",
    }
    started = SparkSession.builder.appName("tests").config(map=settings).getOrCreate()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def adult() -> Path:
    """The folder that holds the real Adult files."""
    if not (REAL_DATA / "adult" / "adult.data").is_file():
        pytest.skip(f"no adult/adult.data in {REAL_DATA}: set MLSPARK_DATA, or run mlspark fetch adult")
    return REAL_DATA


@pytest.fixture(scope="session")
def small_census(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generated adult/: 1,500 + 600 rows, 40 of them bad."""
    folder = tmp_path_factory.mktemp("census")
    census_like.write(folder, num_train=1500, num_test=600, seed=1, bad_rows=40)
    return folder


def census_settings(data: Path, home: Path, *overrides: str) -> Settings:
    """The census pipeline on `data`, its tables below `home`."""
    always = [f"storage.root={home}", f"sources.root={data}", f"contract={ROOT / 'schemas' / 'census.json'}"]
    return config.load([str(ROOT / "conf" / "census.yaml")], [*always, *overrides])
