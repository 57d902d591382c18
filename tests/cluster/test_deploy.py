"""The commands in deploy/ do what they should: MLflow's server, then the three jobs, as the manifests start them.

Hosts and folders of the cluster are replaced by those here, and nothing else; this machine is the master of Spark.
"""

import base64
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest

from tools.cluster import settings as cluster_settings
from tools.cluster.postgres import Postgres
from tools.cluster.process import Process, folder_for, free_port, started
from tools.cluster.s3 import S3
from tools.deploy.manifests import Manifest, load
from tools.deploy.pods import Pod, command, pods

pytest.importorskip("psycopg", reason="needs the extra server")
pytest.importorskip("flask_wtf", reason="needs the extra server")

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy/images"
LOGIN = {"MLFLOW_TRACKING_USERNAME": "keeper", "MLFLOW_TRACKING_PASSWORD": "a-long-password-for-tests"}


@dataclass(frozen=True)
class Local:
    """What stands on this machine for what the manifests name."""

    texts: Mapping[str, str]
    """Text of a manifest -> text for it here."""
    secrets: Mapping[str, Mapping[str, str]]
    manifests: list[Manifest]

    def here(self, text: str) -> str:
        for theirs, ours in self.texts.items():
            text = text.replace(theirs, ours)
        return text

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """The container's variables, with ConfigMaps and secrets looked up."""
        maps = {one.body["metadata"]["name"]: one.body["data"] for one in self.manifests if one.kind == "ConfigMap"}
        made: dict[str, str] = {}
        for source in container.get("envFrom", []):
            of, data = ("secretRef", self.secrets) if "secretRef" in source else ("configMapRef", maps)
            made |= {name: self.here(value) for name, value in data[source[of]["name"]].items()}
        for one in container.get("env", []):
            reference = one.get("valueFrom", {}).get("secretKeyRef")
            made[one["name"]] = (
                self.secrets[reference["name"]][reference["key"]] if reference else self.here(one["value"])
            )
        return made


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mounts")


@pytest.fixture(scope="module")
def local(mounts: Path, postgres: Postgres, s3: S3) -> Local:
    manifests = load(ROOT / "deploy/base")
    texts = {
        "mlflow@postgres:5432/mlflow": f"{postgres.user}@127.0.0.1:{postgres.port}/postgres",
        "http://storage:7070": s3.endpoint,
        "http://mlflow:5000": f"http://127.0.0.1:{(port := free_port())}",
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=5000": f"--port={port}",
        "/etc/mlflow": str(mounts),
        "/etc/mlspark": str(mounts),
        "/opt/mlspark/jobs": str(ROOT / "jobs"),
        "/opt/mlspark/conf": str(ROOT / "conf"),
    }
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secrets = {
        "postgres": {"password": postgres.password},
        "storage": {key: s3.environment[key] for key in keys},
        "tracking": LOGIN,
        "mlflow": {"flask-secret-key": "for-tests-alone"},
    }
    made = Local(texts, secrets, manifests)
    for one in manifests:  # every ConfigMap that is mounted, as files
        for name, text in one.body["data"].items() if one.kind == "ConfigMap" else ():
            (mounts / name).write_text(made.here(text))
    return made


def pod(local: Local, name: str) -> Pod:
    return next(one for one in pods(local.manifests) if one.manifest.name == name)


@pytest.fixture(scope="module")
def server(local: Local, s3: S3) -> Iterator[str]:
    """The MLflow server's address; its command and variables are those of the Deployment."""
    boto3.client("s3").create_bucket(Bucket="mlflow")
    [container] = pod(local, "Deployment/mlflow").containers
    words = [local.here(word) for word in command(container)]
    address = local.here("http://mlflow:5000")
    program = str(Path(sys.executable).with_name(words[0]))
    with folder_for("mlflow") as folder:
        environment = local.environment(container) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with started("mlflow", [program, *words[1:]], folder, environment=environment) as process:
            process.wait(lambda: True if answer(f"{address}/health", process) == 200 else None, seconds=300)
            yield address


def answer(
    url: str, process: Process | None = None, *, host: str = "", login: Mapping[str, str] | None = None
) -> int | None:
    """The status of a GET; None where nobody listens yet."""
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    if login:
        pair = ":".join(login.values()).encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        assert process is not None
        return None


def test_server_answers_who_may_ask_under_its_name(server: str) -> None:
    page = f"{server}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert answer(page, host="mlflow:5000", login=LOGIN) == 200
    assert answer(page, host="mlflow:5000") == 401
    assert answer(page, host="mlflow:5000", login=LOGIN | {"MLFLOW_TRACKING_PASSWORD": "another"}) == 401
    assert answer(page, host="elsewhere:5000", login=LOGIN) == 403
    assert answer(f"{server}/health", host="10.1.2.3:5000") == 200  # the kubelet's probe


def test_run_is_in_postgresql_and_its_files_in_the_store(server: str, postgres: Postgres, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("kept")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LOGIN.items():
            patch.setenv(name, value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
            patch.delenv(name)  # the server alone reaches the store
        patch.setenv("MLFLOW_TRACKING_URI", server)
        client = mlflow.MlflowClient(server)
        run = client.create_run(client.create_experiment("deploy"))
        client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    assert postgres.execute(f"select status from runs where run_uuid = '{run.info.run_id}'").strip() == "RUNNING"
    assert postgres.execute("select username from users").strip() == "keeper"
    [kept] = boto3.client("s3").list_objects_v2(Bucket="mlflow")["Contents"]
    assert kept["Key"].startswith("artifacts/")
    assert boto3.client("s3").get_object(Bucket="mlflow", Key=kept["Key"])["Body"].read() == b"kept"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the image has for Spark, but for its jars, which Spark's settings name here; as variables."""
    home = tmp_path_factory.mktemp("image")
    code = (
        "import sys; from pathlib import Path; import spark_home; conf, home = map(Path, sys.argv[1:]);"
        "spark_home.make_home(home / 'spark'); spark_home.write_settings(conf, home / 'spark-conf')"
    )
    subprocess.run([sys.executable, "-c", code, ROOT / "conf", home], cwd=IMAGES, check=True, timeout=120)
    jars = {name: value for name, value in cluster_settings.spark_settings().items() if name.startswith("spark.jars.")}
    (home / "bin").mkdir()
    shutil.copy(IMAGES / "entrypoint.sh", home / "bin")
    defaults = home / "spark-conf/spark-defaults.conf"
    defaults.write_text(defaults.read_text() + "".join(f"{name} {value}\n" for name, value in jars.items()))
    return {
        "ENTRYPOINT": str(home / "bin/entrypoint.sh"),
        "SPARK_HOME": str(home / "spark"),
        "SPARK_CONF_DIR": "/opt/spark/conf",  # as Spark sets it in its pods
        "SPARK_DRIVER_BIND_ADDRESS": "127.0.0.1",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PATH": f"{home}/spark/bin:{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": os.environ["HOME"],
        "PYTHONPATH": str(ROOT),
    }


def run(words: list[str], local: Local, container: Mapping[str, Any], image: Mapping[str, str]) -> str:
    environment = {**image, **local.environment(container)}
    done = subprocess.run(
        [image["ENTRYPOINT"], *map(local.here, words)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def submit(name: str, local: Local, image: Mapping[str, str], folder: Path) -> str:
    """Run a SparkApplication as Spark starts its driver, with this machine as the master."""
    driver = pod(local, f"SparkApplication/{name}")
    [container] = driver.containers
    memory = driver.manifest.body["spec"]["driver"]["memory"]
    properties = folder / "spark.properties"
    properties.write_text(f"spark.master=local[2]\nspark.driver.memory={memory}\n")
    file, *arguments = command(container)
    words = ["driver", "--properties-file", str(properties), "--class", "org.apache.spark.deploy.PythonRunner"]
    return run([*words, f"local://{file}", *arguments], local, container, image)


def test_jobs_work_on_the_object_store(
    server: str, local: Local, image: Mapping[str, str], tmp_path: Path, postgres: Postgres
) -> None:
    s3 = boto3.client("s3")
    before = {*(ROOT / ".mlspark").rglob("*")}  # of a demo, perhaps
    for name in ("adult.data", "adult.test"):
        s3.upload_file(str(ROOT / "tests/data/adult" / name), "mlspark", f"data/adult/{name}")
    submit("prepare", local, image, tmp_path)
    [container] = pod(local, "TrainJob/train").containers
    few = ["--set", "training.epochs=1"]
    run([*command(container), *few], local, container, image)
    submit("score", local, image, tmp_path)
    assert postgres.execute("select name, version from model_versions").strip() == "census|1"
    held = {one["Key"] for one in s3.list_objects_v2(Bucket="mlspark", Prefix="home/")["Contents"]}
    assert any("score" in key and key.endswith(".parquet") for key in held), sorted(held)
    assert {*(ROOT / ".mlspark").rglob("*")} == before
