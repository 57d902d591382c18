"""What a job costs, what the next one will take, and a training that ends when its budget does."""

import time
from pathlib import Path

import pytest

from mlspark.commands import estimate as command
from mlspark.errors import BudgetSpent, ConfigError
from mlspark.settings.pipeline import Settings
from mlspark.stages import costs, job_records
from mlspark.stages.estimate import estimate, of_records
from mlspark.stages.job_records import JobRecord
from mlspark.stages.spending import Spending
from mlspark.training.events import CheckpointWritten

from ..conftest import ROOT, census_settings

MACHINES = """
currency: EUR
tiers:
  small: {cores: 2, price_per_hour: 36.0, source: made up, date: "2026-11-28"}  # a cent a second
"""


def settings(folder: Path, *overrides: str, machines: str = MACHINES) -> Settings:
    (folder / "machines.yaml").write_text(machines)
    return census_settings(folder, folder, f"cost.machines={folder / 'machines.yaml'}", *overrides)


def test_seconds_are_priced_by_tier_and_number_of_machines(tmp_path: Path) -> None:
    assert costs.of(settings(tmp_path), 90.0) is None
    assert costs.of(settings(tmp_path, "cost.tier=small", "cost.count=3"), 90.0) == {
        "amount": 2.7, "currency": "EUR", "seconds": 90.0, "tier": "small", "count": 3, "price_per_hour": 36.0,
        "source": "made up", "date": "2026-11-28",
    }  # fmt: skip


def test_machines_of_the_repository_say_where_their_prices_are_from(tmp_path: Path) -> None:
    for tier in ("m7g.large", "g5.xlarge", "p5.48xlarge", "lambda-8xh100"):
        of = census_settings(
            tmp_path, tmp_path, f"cost.tier={tier}", f"cost.machines={ROOT / 'conf' / 'machines.yaml'}"
        )
        cost = costs.of(of, 3600.0)
        assert cost is not None
        assert cost["amount"] == cost["price_per_hour"]
        assert "." in cost["source"]


@pytest.mark.parametrize(
    ("overrides", "machines", "message"),
    [
        (["cost.tier=large"], MACHINES, r"cost.tier=large: not in .*machines.yaml \(there are: small\); add it there"),
        (["cost.tier=small"], "tiers: {}", r"machines.yaml: currency: field required"),
        (["cost.tier=small"], MACHINES.replace("36.0", "-1"), r"tiers.small.price_per_hour: input should be greater"),
        (["cost.tier=small"], MACHINES.replace("source: made up, ", ""), r"tiers.small.source: field required"),
        (["cost.tier=small", "cost.machines=none.yaml"], MACHINES, r"none.yaml: cannot be read .*cost.machines"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_machines_is_named(
    tmp_path: Path, overrides: list[str], machines: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        costs.of(settings(tmp_path, *overrides, machines=machines), 1.0)


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget needs tier"):
        settings(tmp_path, "cost.budget=1")


def test_a_training_ends_at_the_checkpoint_before_its_budget_does(tmp_path: Path) -> None:
    """A cent a second, and 1.5 of them: 100 s are spent, of which 60 since the checkpoint before."""
    run_uri, events = str(tmp_path / "run"), []
    of = settings(tmp_path, "cost.tier=small", "cost.budget=1.5")
    spending = Spending(of, run_uri, started=time.monotonic() - 100)
    follow = spending.followed_by(events.append)
    follow(CheckpointWritten(10, 0.1))  # right after the start: the next one is as near
    spending._last_checkpoint -= 60
    with pytest.raises(
        BudgetSpent, match=r"cost.budget=1.5: 1.00\d\d EUR for 100 s of 1 x small are spent.* of step 20 "
    ):
        follow(CheckpointWritten(20, 0.1))
    assert len(events) == 2
    again = Spending(settings(tmp_path), run_uri, started=time.monotonic() - 10)  # a second driver, of no budget
    again.followed_by(events.append)(CheckpointWritten(30, 0.1))
    assert again.save() == pytest.approx(110, abs=5)
    assert Spending(of, run_uri, started=time.monotonic()).seconds == pytest.approx(110, abs=5)


def test_estimates_are_a_line_through_the_jobs_that_were_done() -> None:
    """10 s and a hundredth of a second for each row; the fourth is off by a tenth of its time."""
    three = [JobRecord(work, 10 + work / 100, None, "") for work in (1000, 2000, 4000)]
    exact = of_records(three, 3000)
    assert exact.seconds == pytest.approx(40)
    assert max(exact.errors) < 1e-9
    missed = of_records([*three, JobRecord(3000, 40 / 1.1, None, "")], 3000)
    assert missed.num_runs == 4
    assert missed.errors[3] == pytest.approx(0.1)


def test_a_job_that_ran_beside_others_moves_no_estimate() -> None:
    jobs = [JobRecord(work, 10 + work / 100, None, "") for work in (1000, 2000, 4000, 8000)]
    slow = JobRecord(3000, 120.0, None, "")
    assert of_records([*jobs, slow], 6000).seconds == pytest.approx(70)
    assert of_records([*jobs, slow], 6000).errors == pytest.approx((0.0, 0.0, 0.0, 0.0, 2 / 3))


def test_time_around_training_grows_with_rows_and_not_with_epochs() -> None:
    """5 s, a hundredth of a second for each row read, and a thousandth for each row of each epoch."""
    jobs = [
        JobRecord(rows * epochs, 5 + rows / 100 + rows * epochs / 1000, rows * epochs / 1000, "", rows=rows)
        for rows, epochs in ((1000, 1), (1000, 20), (3000, 5), (2000, 2))
    ]
    found = of_records(jobs, 6000, 10)
    assert (found.work, found.seconds) == (60_000, pytest.approx(5 + 60 + 60))
    assert max(found.errors) < 1e-6


def test_one_job_tells_what_grows_by_its_time_in_training() -> None:
    assert of_records([JobRecord(1000, 30.0, 20.0, "")], 2000).seconds == pytest.approx(50)
    assert of_records([JobRecord(1000, 30.0, None, "")], 2000).seconds == pytest.approx(60)
    assert of_records([JobRecord(1000, 30.0, 20.0, "")], 2000).errors == ()
    assert of_records([JobRecord(1000, 30.0, 20.0, ""), JobRecord(1000, 33.0, 20.0, "")], 1000).errors == pytest.approx(
        (0.1, 1 / 11)
    )


def test_jobs_are_estimated_from_those_of_the_same_model_machines_and_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = settings(tmp_path, "cost.tier=small", "training.epochs=5")
    with pytest.raises(ConfigError, match=r"estimate train: no train job .* run one, on few rows"):
        estimate(of, "train", rows=100)
    trained = {"rows_per_epoch": 1000, "epochs": 2, "restarts": 0, "train_seconds": 20.0}
    job_records.keep(of, "train", trained, 30.0)
    job_records.keep(of, "train", trained | {"already_done": True}, 3.0)  # these three say nothing
    job_records.keep(of, "train", trained | {"restarts": 1}, 300.0)
    job_records.keep(of, "train", {"members": []}, 300.0)
    found = estimate(of, "train", rows=100)
    assert (found["work"], found["num_runs"]) == (500, 1)
    assert found["seconds"] == pytest.approx(15)  # 10 s, and 20 s for 2,000 rows
    assert found["cost"]["amount"] == pytest.approx(0.15)
    with pytest.raises(ConfigError, match=r"\(there are 1 of others\)"):
        estimate(settings(tmp_path, "cost.tier=small", "training.num_processes=1"), "train", rows=100)
    for rows, seconds in ((1000, 20.0), (3000, 40.0), (2000, 30.0)):
        job_records.keep(of, "score", {"rows_read": rows, "already_done": False}, seconds)
    (tmp_path / "census.yaml").write_text(of.to_yaml())
    command.estimate("score", [str(tmp_path / "census.yaml")], rows=5000)
    assert capsys.readouterr().out == (
        "score: 5,000 rows take about 60 s, 0.6000 EUR (1 x small)\n"
        "from 3 jobs like it; estimates of each from the others miss it by 0 % at least, 0 % in the median, 0 % at most\n"
    )
    assert estimate(of, "score")["rows"] == 3000
