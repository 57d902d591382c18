"""The commands as a user types them, with the real spark-submit and stages that do nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlspark.queue.places import Places

PROGRAM = """\
import json, os, sys
option = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("{name} of", os.environ["MLSPARK_HOME"], open(option["--config"]).readline().strip())
json.dump({{"stage": "{name}"}}, open(option["--report"], "w"))
sys.exit({status})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    for name, status in {"prepare": 0, "train": 2, "promote": 0, "score": 0}.items():
        (tmp_path / "jobs" / f"{name}.py").write_text(PROGRAM.format(name=name, status=status))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "learn.csv").write_text("1\n")
    (tmp_path / "p.yaml").write_text("name: fake\nsources: {learn: {kind: csv, path: learn.csv}}\n")
    return tmp_path


def mlspark(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mlspark.commands.main import main; main()", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("MLSPARK_DATA", "MLSPARK_QUEUE")}
    environment |= {"MLSPARK_HOME": "home", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_job_from_submission_to_report(folder: Path) -> None:
    submitted = mlspark(folder, "submit", "p.yaml:train")
    job = submitted.stdout.strip()
    assert job.startswith("fake-"), submitted.stderr
    waited = mlspark(folder, "wait", job)
    assert (waited.returncode, waited.stdout) == (
        2, f"{job}: failed, train: exit status 2, to be corrected: train of home name: fake\n"
    )  # fmt: skip
    logs = mlspark(folder, "logs", job, "--stage", "train", "-f").stdout.splitlines()
    assert logs[0].startswith(f"==> train, attempt 1 of {job}, 20")
    assert logs[-1] == "train of home name: fake"
    (folder / "jobs" / "train.py").write_text(PROGRAM.format(name="train", status=0))
    assert mlspark(folder, "retry", job[:-2]).stdout.strip() == job
    assert mlspark(folder, "wait", job).stdout == f"{job}: succeeded\n"
    [listed] = json.loads(mlspark(folder, "jobs", "--json", "-").stdout)
    tried = [("train", "failed"), ("train", "succeeded")]
    assert [(each["stage"], each["state"]) for each in listed["attempts"]] == tried
    assert json.loads(Path(listed["reports"]["train"]).read_text()) == {"stage": "train"}
    assert (listed["state"], listed["exit_status"]) == ("succeeded", 0)
    table = mlspark(folder, "jobs").stdout.splitlines()
    assert table[0].split()[:3] == ["job", "state", "stage"]
    assert table[1].split()[:5] == [job, "succeeded", "train", "1/1", "2"]
    same = mlspark(folder, "submit", "p.yaml:train")
    assert (same.stdout.strip(), same.stderr) == (job, f"{job}: the same job, succeeded; nothing was queued\n")
    assert mlspark(folder, "cancel", job).stdout == f"{job}: has already ended, succeeded\n"
    assert oct((folder / ".mlspark" / "queue").stat().st_mode)[-3:] == "700"
    assert Places(folder / ".mlspark" / "queue").database.exists()


def test_dry_run_prints_and_queues_nothing(folder: Path) -> None:
    shown = mlspark(folder, "submit", "p.yaml:prepare", "--target", "yarn", "--dry-run").stdout
    spark_submit = Path(sys.executable).with_name("spark-submit")
    assert shown == (
        f"{spark_submit} --master yarn --deploy-mode client jobs/prepare.py --config SETTINGS --report REPORT\n"
    )
    assert not (folder / ".mlspark").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit", "p.yaml", "--time-limit", "2 hours"), "--time-limit 2 hours: expected a number and s, m, h or d"),
        (
            ("submit", "p.yaml", "--target", "kubeflow"),
            "--target kubeflow: MLSPARK_KUBEFLOW is not set; give it the URL",
        ),
        (("submit", "p.yaml", "--budget", "-1"), "--budget -1: must be more than 0"),
        (("schedule", "add", "daily", "@daily", "p.yaml", "--budget", "-1"), "--budget -1: must be more than 0"),
        (
            ("wait", "fake"),
            ".mlspark/queue: holds no queue; go to the folder where jobs were submitted, or set MLSPARK_QUEUE",
        ),
        (("jobs",), ".mlspark/queue: holds no queue"),
        (("schedule", "add", "x", "0 3 * *", "p.yaml"), 'schedule "0 3 * *": 4 fields; give five'),
    ],
)
def test_what_is_wrong_is_said_in_one_message(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = mlspark(folder, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr
    assert not (folder / ".mlspark").exists()
