"""The container file holds what it should, and what would make an image unsafe or not what it says is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.deploy import images

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/images"
GOOD = images.DOCKERFILE.read_text()


def test_container_file_is_whole() -> None:
    assert list(images.of_dockerfile(GOOD)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("@sha256:b18992999dbe", "@sha256:b1899", "FROM docker.io/library/python:3.11.15-slim-bookworm@sha256:b1899"),
        ("USER 10001\n", "", "USER root: needs a number other than 0"),
        ("USER 10001\n", "USER mlspark\n", "USER mlspark: needs a number"),
        ("USER 10001\n", "USER 0\n", "USER 0: needs a number"),
        ("COPY jobs jobs", "COPY job jobs", "COPY job: not in the repository"),
        ("COPY jobs jobs", "COPY docs jobs", "COPY docs: .dockerignore leaves it out"),
        ("    HOME=/tmp", "    HOME=/tmp DB_PASSWORD=hunter2", "ENV DB_PASSWORD: would keep a secret in the image"),
        (
            '"$TORCH_INDEX" \\\n    --constraint',
            '"$TORCH_INDEX" -c',
            "installs packages without",
        ),
    ],
)
def test_fault_of_a_container_file_is_named(old: str, new: str, said: str) -> None:
    assert old in GOOD
    lines = list(images.of_dockerfile(GOOD.replace(old, new)))
    assert any(said in line for line in lines), lines


def test_link_that_leads_nowhere_in_the_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in images._ignored() if not line.startswith("conf/")]
    monkeypatch.setattr(images, "_ignored", lambda: lines)
    assert "COPY conf: conf/spark-env.sh would lead nowhere in the image" in list(images.of_dockerfile(GOOD))


def test_files_of_the_image_are_those_of_the_repository() -> None:
    assert images.source("/opt/mlspark/jobs/train.py") == ROOT / "jobs/train.py"
    assert images.source("/opt/mlspark/bin/entrypoint.sh") == FOLDER / "entrypoint.sh"
    assert images.source("/opt/mlspark/jobs/none.py") is None
    assert images.source("/etc/passwd") is None


@pytest.mark.skipif(shutil.which("hadolint", path=Path(sys.executable).parent) is None, reason="no hadolint")
def test_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    done = subprocess.run([str(hadolint), images.DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_image_has_the_settings_of_jobs_without_jars_to_fetch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import spark_home; spark_home.write_settings(*map(Path, sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", code, ROOT / "conf", tmp_path / "conf"], cwd=FOLDER, check=True, timeout=120)
    ours = settings(ROOT / "conf/spark-defaults.conf")
    theirs = settings(tmp_path / "conf/spark-defaults.conf")
    assert {name: value for name, value in ours.items() if not name.startswith("spark.jars.")} == {
        name: value for name, value in theirs.items() if not name.startswith("spark.hadoop.fs.s3a.")
    }
    assert theirs["spark.hadoop.fs.s3a.endpoint"] == "${env.AWS_ENDPOINT_URL:-}"


def settings(file: Path) -> dict[str, str]:
    return dict(line.split(None, 1) for line in file.read_text().splitlines() if line and not line.startswith("#"))


def test_entrypoint_starts_what_spark_asks_for(tmp_path: Path) -> None:
    """A program that prints its arguments stands in for Java and spark-submit."""
    for name in ("java/bin/java", "spark/bin/spark-submit"):
        program = tmp_path / name
        program.parent.mkdir(parents=True)
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
        program.chmod(0o755)
    names = ("DRIVER_URL", "EXECUTOR_ID", "EXECUTOR_CORES", "APPLICATION_ID", "EXECUTOR_POD_IP", "RESOURCE_PROFILE_ID")
    variables = {f"SPARK_{name}": name.lower() for name in (*names, "EXECUTOR_POD_NAME", "DRIVER_BIND_ADDRESS")}
    variables |= {
        "JAVA_HOME": f"{tmp_path}/java",
        "SPARK_HOME": f"{tmp_path}/spark",
        "SPARK_CONF_DIR": "/opt/spark/conf",
    }
    variables |= {
        "SPARK_EXECUTOR_MEMORY": "4g",
        "SPARK_JAVA_OPT_0": "-Da=b c",
        "SPARK_JAVA_OPT_1": "-Dd=e",
        "PATH": os.environ["PATH"],
    }

    (tmp_path / "spark-conf").mkdir()
    (tmp_path / "bin").mkdir()
    entrypoint = shutil.copy(FOLDER / "entrypoint.sh", tmp_path / "bin")

    def said(*words: str) -> list[str]:
        command = [entrypoint, *words]
        return subprocess.check_output(command, env=variables, text=True, timeout=60).splitlines()

    program, *options = said("executor")
    assert program == f"{tmp_path}/java/bin/java"
    assert {"-Da=b c", "-Dd=e", "-Xmx4g", "--podName", "executor_pod_name", "--cores", "executor_cores"} <= set(options)
    assert options[options.index("-cp") + 1] == f"{tmp_path}/spark-conf:{tmp_path}/spark/jars/*"
    program, *options = said("driver", "--properties-file", "/opt/spark/conf/spark.properties", "local:///a b.py")
    assert program == f"{tmp_path}/spark/bin/spark-submit"
    assert options[-3:] == ["--properties-file", "/opt/spark/conf/spark.properties", "local:///a b.py"]
    assert "spark.driver.bindAddress=driver_bind_address" in options
    assert said("echo", "a b", "c") == ["a b c"]


def test_gpus_are_said_as_spark_asks(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.check_output([FOLDER / "gpus.sh"], env=environment, text=True, timeout=60)
    assert said == '{"name": "gpu", "addresses": ["0","1"]}\n'
