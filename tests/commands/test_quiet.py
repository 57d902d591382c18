"""Standard error is left to the jobs: what Ivy and Java report of a good start is taken out, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlspark import session

from ..conftest import ROOT, wait_until

GOOD_START = """\
WARNING: Using incubator modules: jdk.incubator.vector
:: loading settings :: url = jar:file:/venv/pyspark/jars/ivy-2.5.3.jar!/org/apache/ivy/core/settings/ivysettings.xml
Ivy Default Cache set to: /home/ann/.ivy2.5.2/cache
The jars for the packages stored in: /home/ann/.ivy2.5.2/jars
io.delta#delta-spark_4.2_2.13 added as a dependency
:: resolving dependencies :: org.apache.spark#spark-submit-parent-7c1f;1.0
\tconfs: [default]
\tfound io.delta#delta-spark_4.2_2.13;4.4.0 in central
\tfound org.antlr#antlr4-runtime;4.13.1 in local-m2-cache
downloading https://repo1.maven.org/maven2/io/delta/delta-storage/4.4.0/delta-storage-4.4.0.jar ...
\t[SUCCESSFUL ] io.delta#delta-storage;4.4.0!delta-storage.jar (120ms)
:: resolution report :: resolve 90ms :: artifacts dl 3ms
\t:: modules in use:
\tio.delta#delta-spark_4.2_2.13;4.4.0 from central in [default]
\t---------------------------------------------------------------------
\t|                  |            modules            ||   artifacts   |
\t|       conf       | number| search|dwnlded|evicted|| number|dwnlded|
\t---------------------------------------------------------------------
:: retrieving :: org.apache.spark#spark-submit-parent-7c1f
\tconfs: [default]
\t0 artifacts copied, 4 already retrieved (0kB/5ms)
Setting default log level to "WARN".
To adjust logging level use sc.setLogLevel(newLevel). For SparkR, use setLogLevel(newLevel).
"""
WORTH_SAYING = """\
:: problems summary ::
:::: WARNINGS
\t\tmodule not found: io.delta#delta-spark_4.2_2.13;9.9.9
\t==== central: tried
\t  https://repo1.maven.org/maven2/io/delta/delta-spark_4.2_2.13/9.9.9/delta-spark_4.2_2.13-9.9.9.pom
Exception in thread "main" java.lang.RuntimeException: [unresolved dependency: io.delta#delta-spark_4.2_2.13;9.9.9]
12:00:00 WARN TaskSetManager: Lost task 0.0 in stage 1.0
prepare: contract schemas/census.json: cannot be read (No such file or directory); check the setting `contract`
"""


def left_of(text: str, **environment: str) -> str:
    """What of a text on standard error is left when Spark's shell has read conf/spark-env.sh."""
    command = ["bash", "-c", ". conf/spark-env.sh; cat >&2"]
    done = subprocess.run(
        command, cwd=ROOT, input=text, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr


def test_a_good_start_says_nothing() -> None:
    assert left_of(GOOD_START) == ""


def test_all_that_went_wrong_is_said() -> None:
    assert left_of(GOOD_START + WORTH_SAYING) == WORTH_SAYING


def test_everything_is_said_to_those_who_ask() -> None:
    assert left_of(GOOD_START, MLSPARK_VERBOSE="1") == GOOD_START


def test_what_is_said_after_ctrl_c_is_said(tmp_path: Path) -> None:
    """A terminal sends it to every process of the foreground, the one that takes lines out among them."""
    log = tmp_path / "log"
    script = (
        f". conf/spark-env.sh; trap '' INT; echo begun >&2; until grep -q begun {log}; do sleep 0.05; done; "
        "kill -INT 0; sleep 0.5; echo 'train: interrupted at step 3' >&2"
    )
    with log.open("wb") as errors:
        subprocess.run(["bash", "-c", script], cwd=ROOT, stderr=errors, timeout=60, start_new_session=True, check=True)
    wait_until(lambda: log.read_text() == "begun\ntrain: interrupted at step 3\n", 60.0)


@pytest.mark.slow
def test_spark_that_python_starts_says_nothing() -> None:
    """Without spark-submit and without SPARK_CONF_DIR, as `python jobs/prepare.py` and `mlspark contract infer` start it."""
    names = ("SPARK_HOME", "SPARK_CONF_DIR", "MLSPARK_VERBOSE")
    done = subprocess.run(
        [sys.executable, "-c", "from mlspark import session; print(session.start('quiet').range(3).count())"],
        env={name: value for name, value in os.environ.items() if name not in names},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_folder_of_settings_that_somebody_gave_spark_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with session._quiet_start():
        assert os.environ["SPARK_CONF_DIR"] == str(ROOT / "mlspark" / "spark_conf")
    assert "SPARK_CONF_DIR" not in os.environ
    (tmp_path / "conf").mkdir()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    with session._quiet_start():
        assert "SPARK_CONF_DIR" not in os.environ
    monkeypatch.setenv("SPARK_CONF_DIR", "elsewhere")
    monkeypatch.delenv("SPARK_HOME")
    with session._quiet_start():
        assert os.environ["SPARK_CONF_DIR"] == "elsewhere"
