"""What all tests share: one Spark session, a sample of the census, a made-up one, and who runs beside whom."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before anything starts a JVM or a worker: loopback only, this very Python, these very sources.
ROOT = Path(__file__).parents[1]
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
for name in ("MLSPARK_HOME", "MLFLOW_TRACKING_URI", "SPARK_CONF_DIR"):
    os.environ.pop(name, None)

import psutil  # noqa: E402
import pytest  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

from mlspark import session  # noqa: E402
from mlspark.datasets import census_like  # noqa: E402
from mlspark.settings import loading  # noqa: E402
from mlspark.settings.pipeline import Settings  # noqa: E402
from tools.cluster.process import SHORT_LIVED_JAVA  # noqa: E402

# 2,000 rows of the Adult files, as they stand there; see NOTICE beside them.
SAMPLE = ROOT / "tests" / "data"
REAL_DATA = Path(os.environ.get("MLSPARK_DATA", ROOT / "data")).resolve()


OF_RANKS = {"training", "tuning", "commands"}
OF_STAGES = {"jobs", "stages", "scoring", "registry", "intake"}
"""Folders of the tests that run ranks under Spark, and whole stages: each about as long as all others with a JVM."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what `make test` may run at the same time: three groups of tests with a JVM each, and the other files by file.

    The groups with the most tests start first, so each of three processes begins with a JVM and goes on with files. What the
    tests of a file share is made once.
    """
    for item in items:
        file = item.path.relative_to(ROOT)
        group = file.as_posix()
        if not {"spark", "cluster_spark"}.isdisjoint(getattr(item, "fixturenames", ())):
            folders = set(file.parts)
            group = "jvm of ranks" if OF_RANKS & folders else "jvm of stages" if OF_STAGES & folders else "jvm of rooms"
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """MLflow writes the store that a test was in last into the environment, where it would be the next one's default.

    Before all fixtures: those of a module are made before those of a test.
    """
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    settings = session.defaults() | {
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.memory": "2g",
        "spark.log.level": "ERROR",
        # A JVM of minutes: what the second compiler makes faster is done by then. A sixth less processor time; without it
        # Java would have a fifth of the room for what it has compiled, and Spark keeps 100 queries of the thousands.
        "spark.driver.extraJavaOptions": " ".join((*SHORT_LIVED_JAVA, "-XX:ReservedCodeCacheSize=240m")),
        "spark.sql.codegen.cache.maxEntries": "2000",
    }
    started = SparkSession.builder.appName("tests").config(map=settings).getOrCreate()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def whole_adult() -> Path:
    """The folder that holds the real Adult files, for tests that need all of their rows."""
    if not (REAL_DATA / "adult" / "adult.data").is_file():
        pytest.skip(f"no adult/adult.data in {REAL_DATA}: set MLSPARK_DATA, or run mlspark fetch adult")
    return REAL_DATA


@pytest.fixture(scope="session")
def adult() -> Path:
    """The folder that holds Adult files: the real ones where they are at hand, else the sample of 2,000 real rows."""
    return REAL_DATA if (REAL_DATA / "adult" / "adult.data").is_file() else SAMPLE


@pytest.fixture(scope="session")
def small_census(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generated adult/: 1,500 + 600 rows, 40 of them bad."""
    folder = tmp_path_factory.mktemp("census")
    census_like.write(folder, num_train=1500, num_test=600, seed=1, bad_rows=40)
    return folder


def imported_by(*modules: str) -> set[str]:
    """Return the names of all modules that a new Python has once it has imported these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.fixture
def own_workers(spark: SparkSession, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Have Spark start Python workers for this test, in place of those that others have left idle."""
    monkeypatch.setitem(spark.sparkContext.environment, "MLSPARK_WORKERS_OF", request.node.name)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie, which nobody has asked for its status yet, does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # never was, or ended while it was looked at
        return False


def wait_until(holds: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for an event; the limit is long because a machine may be slow."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def census_settings(data: Path, home: Path, *overrides: str) -> Settings:
    """The census pipeline on `data`, its tables below `home`."""
    always = [f"storage.root={home}", f"sources.root={data}", f"contract={ROOT / 'schemas' / 'census.json'}"]
    return loading.load([str(ROOT / "conf" / "census.yaml")], [*always, *overrides])
