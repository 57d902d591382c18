"""Java starts with an archive of Spark's classes where there is one and the class path is the plain one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT

SUBMIT = "org.apache.spark.deploy.SparkSubmit"
HOMES = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_DIST_CLASSPATH", "SPARK_PREPEND_CLASSES", "MLSPARK_JAVA_ARCHIVE")


def shell(folder: Path, *arguments: str, conf: Path = ROOT / "conf", **environment: str) -> tuple[str, str]:
    """Return options of Java, and the archive's name, of conf/spark-env.sh as spark-class reads it."""
    script = '. conf/spark-env.sh; echo "$SPARK_SUBMIT_OPTS"; echo "$mlspark_archive"'
    names = {
        "SPARK_HOME": "/spark",
        "SPARK_CONF_DIR": str(conf),
        "XDG_CACHE_HOME": str(folder),
        "SPARK_SUBMIT_OPTS": "",
    }
    done = subprocess.run(
        ["bash", "-c", script, "spark-class", *(arguments or (SUBMIT, "pyspark-shell"))],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        env={name: value for name, value in os.environ.items() if name not in HOMES} | names | environment,
    )  # fmt: skip
    options, archive = done.stdout.splitlines()
    return options.strip(), archive


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an empty file of the archive's name."""
    assert shell(tmp_path)[0] == ""  # there is none
    file = Path(f"{shell(tmp_path)[1]}-0.jsa")
    file.parent.mkdir()
    file.touch()
    return file


def test_archive_stands_before_the_users_options_and_jars_before_the_settings(tmp_path: Path, archive: Path) -> None:
    options, _ = shell(tmp_path, SPARK_SUBMIT_OPTS="-Dmine=1")
    checked = ["-XX:+VerifySharedSpaces", "-Xlog:cds*=off"]
    path = f"-cp /spark/jars/*:{ROOT / 'conf'}/"
    assert options.split() == [*path.split(), f"-XX:SharedArchiveFile={archive}", *checked, "-Dmine=1"]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ((), {"MLSPARK_JAVA_ARCHIVE": "no"}),
        ((), {"HADOOP_CONF_DIR": "/etc/hadoop"}),
        ((), {"SPARK_HOME": "/other/spark"}),
        ((SUBMIT, "--driver-class-path", "mine.jar", "job.py"), {}),
        ((SUBMIT, "--conf", "spark.driver.extraClassPath=mine.jar", "job.py"), {}),
        ((SUBMIT, "--properties-file", "mine.conf", "job.py"), {}),
        (("org.apache.spark.deploy.master.Master",), {}),
    ],
)  # fmt: skip
def test_java_starts_as_ever_with_another_class_path(
    tmp_path: Path, archive: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert shell(tmp_path, *arguments, **environment)[0] == ""


def test_java_starts_as_ever_where_the_settings_have_a_class_path(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "spark-defaults.conf").write_text("spark.driver.extraClassPath  mine.jar\n")
    assert shell(tmp_path, conf=tmp_path)[0] == ""


def test_archive_that_was_cut_off_is_not_given_to_java(tmp_path: Path, archive: Path) -> None:
    archive = archive.rename(f"{str(archive).removesuffix('-0.jsa')}-3.jsa")
    archive.write_bytes(b"abc")
    assert f"-XX:SharedArchiveFile={archive}" in shell(tmp_path)[0]
    archive.write_bytes(b"ab")
    assert shell(tmp_path)[0] == ""


def test_java_passes_over_an_archive_that_is_none_or_damaged_without_a_word(tmp_path: Path, archive: Path) -> None:
    whole = tmp_path / "whole.jsa"
    path = ["-cp", "/spark/jars/*"]
    making = ["java", *path, f"-XX:ArchiveClassesAtExit={whole}", "-Xlog:cds*=off", "-version"]
    subprocess.run(making, capture_output=True, timeout=120, check=True)
    content = whole.read_bytes()
    middle = len(content) // 2
    damaged = (
        content[:middle] + bytes(255 - value for value in content[middle : middle + 4096]) + content[middle + 4096 :]
    )
    for bad in (b"", b"no archive", damaged):
        archive = archive.rename(f"{str(archive).rpartition('-')[0]}-{len(bad)}.jsa")
        archive.write_bytes(bad)
        options = shell(tmp_path)[0].split()
        assert f"-XX:SharedArchiveFile={archive}" in options
        done = subprocess.run(["java", *options, "--version"], capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.startswith("openjdk ")
        assert done.stderr == ""


@pytest.mark.slow
def test_setup_keeps_the_classes_that_a_job_loads(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "java_archive.sh"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [script, Path(sys.prefix)], env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    [file] = (tmp_path / "mlspark").iterdir()  # nothing is left beside it
    assert done.stdout.splitlines()[-1] == str(file)
    log = tmp_path / "classes"
    code = "from mlspark import session; print(session.start('archive').range(3).count())"
    options = {"SPARK_SUBMIT_OPTS": f"-Xlog:class+load:file={log}", "SPARK_CONF_DIR": str(ROOT / "conf")}
    kept = {name: value for name, value in environment.items() if name not in ("SPARK_HOME", *HOMES)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | options, capture_output=True, text=True, timeout=300, check=True
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
    loaded = log.read_text().splitlines()
    assert sum("source: shared objects file (top)" in line for line in loaded) > len(loaded) / 2
