"""`mlspark plan` before anything was prepared: what must be given, what is looked up, what is said and drawn. No Spark."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlspark.commands import plan as command
from mlspark.errors import ConfigError
from mlspark.settings.pipeline import Settings
from mlspark.stages import job_records
from mlspark.stages.plan import Given, plan

from ..conftest import ROOT, census_settings

GIVEN = Given(rows=10**9, row_bytes=31.0, rows_per_second=50_000.0, step_seconds=0.002, parameters=100_000)


def settings(folder: Path, *overrides: str) -> Settings:
    machines = f"cost.machines={ROOT / 'conf' / 'machines.yaml'}"
    return census_settings(folder, folder, machines, "training.global_batch_size=65536", *overrides)


def test_each_number_of_ranks_has_its_hours_and_its_price(tmp_path: Path) -> None:
    found = plan(settings(tmp_path, "cost.tier=m7g.large", "cost.count=7"), GIVEN, ranks=[4, 1, 2, 4])
    assert [row["ranks"] for row in found["ranks"]] == [1, 2, 4]
    one, two, four = found["ranks"]
    steps = -(-(10**9) // 65536)
    assert one["steps_per_epoch"] == steps
    seconds = 60 + 12 * steps * (65536 / 50_000 + 0.002)  # conf/census.yaml has 12 epochs
    assert one["hours"] == pytest.approx(seconds / 3600)
    assert one["money"] == pytest.approx(seconds / 3600 * 0.0816)  # one machine, whatever cost.count is
    assert (two["machines"], four["machines"]) == (1, 2)  # of two cores
    assert found["training"]["lanes"] == 8
    assert found["machine"]["tier"] == "m7g.large"
    assert json.loads(json.dumps(found)) == found


def test_ranks_that_the_batch_is_too_small_for_are_left_out(tmp_path: Path) -> None:
    found = plan(settings(tmp_path, "training.global_batch_size=8"), GIVEN, ranks=[1, 16])
    assert [row["ranks"] for row in found["ranks"]] == [1]
    assert "batch_size=8 is fewer rows than world_size=16" in found["left_out"]["16"]
    assert found["price"] is None
    assert found["ranks"][0]["money"] is None


def test_speed_is_that_of_the_jobs_of_one_rank(tmp_path: Path) -> None:
    of = settings(tmp_path)
    for ranks, busy in ((1, 20.0), (2, 1.0)):  # the second is of two ranks, and does not count
        ran = settings(tmp_path, f"training.num_processes={ranks}")
        job_records.keep(ran, "train", {"rows_per_epoch": 500_000, "epochs": 2, "train_seconds": busy}, 60.0)
    found = plan(of, Given(rows=10**6, row_bytes=31.0, parameters=1000), ranks=[1])
    assert found["speed"]["rows_per_second"] == pytest.approx(50_000)
    assert found["speed"]["source"] == "1 job of one rank"


@pytest.mark.parametrize(
    ("given", "overrides", "message"),
    [
        (Given(), [], "nothing was prepared below .* yet; run prepare, or give --rows and --row-bytes"),
        (Given(rows=100, row_bytes=9.0), [], "give --parameters"),
        (Given(rows=100, row_bytes=9.0, parameters=9), [], "no training of this model .*num_processes=1"),
        (GIVEN, ["model={kind: trees}"], "model.kind=trees is not trained by ranks"),
        (GIVEN, ["cost.tier=m7g.large", "training.use_gpu=true"], "m7g.large has no GPU, and training.use_gpu is true"),
    ],
)  # fmt: skip
def test_what_is_neither_given_nor_known_is_named(
    tmp_path: Path, given: Given, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(settings(tmp_path, *overrides), given)


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--budget: cost\.tier is not set"):
        plan(settings(tmp_path), GIVEN, budget=5.0)


def test_it_is_said_in_a_table_with_a_recommendation_and_drawn(tmp_path: Path) -> None:
    # A plain file of settings: only what is on the command line counts besides.
    arguments = [
        "--config", str(ROOT / "conf" / "census.yaml"), "--set", f"storage.root={tmp_path}",
        "--set", f"contract={ROOT / 'schemas' / 'census.json'}", "--set", "training.global_batch_size=1048576",
        "--set", f"cost.machines={ROOT / 'conf' / 'machines.yaml'}", "--set", "cost.tier=m7g.large",
        "--rows", "1e11", "--row-bytes", "31", "--rows-per-second", "100000", "--parameters", "100000",
        "--json", str(tmp_path / "plan.json"), "--plot", str(tmp_path / "plan.png"),
    ]  # fmt: skip
    runner = CliRunner()
    done = runner.invoke(command.app, [*arguments, "--hours", "6"], catch_exceptions=False)
    found = json.loads((tmp_path / "plan.json").read_text())
    assert [row["ranks"] for row in found["ranks"]] == [2**power for power in range(11)]
    fitting = [row for row in found["ranks"] if row["hours"] <= 6]
    assert found["recommended"] == min(fitting, key=lambda row: row["money"])["ranks"]
    assert "100,000,000,000 rows in 2,000,000 row groups" in done.stdout
    assert f"recommended: {found['recommended']:,} ranks (within 6.0 hours)" in done.stdout.replace("\n", " ")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    none = runner.invoke(command.app, [*arguments, "--hours", "0.01"], catch_exceptions=False)
    assert "none is done within 0.01 hours: the fastest, 1,024 ranks, takes" in none.stdout.replace("\n", " ")
    with pytest.raises(ConfigError, match="--ranks 0,two: give whole numbers"):
        runner.invoke(command.app, [*arguments, "--ranks", "0,two"], catch_exceptions=False)
