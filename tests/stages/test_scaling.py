"""What a training takes on few and on many ranks: by hand for small ones, with the real plan up to 10^11 rows."""

from dataclasses import replace
from itertools import pairwise

import pytest

from mlspark.cost import Price
from mlspark.errors import DatasetError
from mlspark.stages.scaling import Machine, Model, Speed, even_table, recommended
from mlspark.streaming.plan import Plan

EURO = Price("small", 1, 36.0, "EUR", "made up", "2026-11-28")  # a cent a second
GPU = Machine(cores=8, ranks=2, network_bytes_per_second=1e9, latency_seconds=0.001, start_seconds=0.0)


def model(
    *, rows: int = 8000, group: int = 100, batch: int = 800, lanes: int = 8, machine: Machine = GPU, epochs: int = 2
) -> Model:
    table = even_table(rows, group, 10.0, 40.0)
    plan = Plan(table.rows_per_group, batch, 0, 0, lanes=lanes, shuffle_window_rows=800)
    return Model(table, plan, epochs, Speed(1000.0, 0.1, 25_000_000), machine, EURO)


def test_one_rank_takes_its_rows_and_its_steps() -> None:
    one = model().on(1)
    assert (one.ranks, one.machines, one.steps_per_epoch, one.most_rows, one.least_rows) == (1, 1, 10, 8000, 8000)
    assert one.compute_seconds == pytest.approx(0.9)  # 800 rows of a millisecond, and 0.1 s
    assert one.reduce_seconds == 0.0
    assert one.hours == pytest.approx(2 * 10 * 0.9 / 3600)
    assert one.money == pytest.approx(2 * 10 * 0.9 * 0.01)
    assert (one.efficiency, one.limit) == (1.0, "compute")
    assert one.window_bytes == 2 * 800 * 40.0
    assert one.read_bytes == 8000 * 10.0  # 8 lanes of 10 row groups each: no edge cuts one


def test_ranks_of_one_machine_share_its_network_and_machines_exchange_over_it() -> None:
    two, four = model().on(2), model().on(4)
    # 100 MB of gradients. Two ranks of one machine: half of them twice through its memory; two messages.
    assert two.reduce_seconds == pytest.approx(100e6 / 10e9 + 2 * 0.001)
    # Two machines: the same within, half of them twice over a network of 1 GB/s; four messages.
    assert four.reduce_seconds == pytest.approx(100e6 / 10e9 + 100e6 / 1e9 + 4 * 0.001)
    assert (two.machines, four.machines) == (1, 2)
    assert four.compute_seconds == pytest.approx(0.3)
    assert four.efficiency == pytest.approx(0.9 / (4 * (0.3 + 0.114)))
    assert four.money == pytest.approx(2 * 2 * 10 * (0.3 + 0.114) * 0.01)


def test_more_ranks_than_cores_wait_for_one_another() -> None:
    crowded = model(machine=Machine(cores=2, ranks=4, latency_seconds=0.0, start_seconds=0.0)).on(4)
    assert crowded.compute_seconds == pytest.approx(2 * 0.3)
    assert crowded.limit == "cores"


def test_a_slow_store_limits_all_ranks_together() -> None:
    slow = model(machine=replace(GPU, store_bytes_per_second=1000.0))
    for ranks in (1, 4):
        row = slow.on(ranks)
        assert row.read_seconds == pytest.approx(8.0)  # 80,000 bytes in 10 steps
        assert row.limit == "reading"
    assert slow.on(1).wanted_bytes_per_second == pytest.approx(1000.0)


def test_row_groups_that_lanes_cut_are_read_twice() -> None:
    """Three lanes of 1,000 rows on groups of 400: edges at 1,000 and 2,000, both inside a group or one on its end."""
    cut = model(rows=3000, group=400, batch=300, lanes=3)
    reads = sum(cut._rows_read_by_lane.tolist())
    assert 3000 < reads <= 3000 + 2 * 400
    assert reads == sum(
        int(cut.table.rows_per_group[group])
        for lane in range(3)
        for group in set(cut.plan.segments(range(lane, lane + 1)).group.tolist())
    )


def test_ranks_that_lanes_do_not_divide_wait_for_the_one_with_most_rows() -> None:
    three = model().on(3)
    assert (three.most_rows, three.least_rows) == (3000, 2000)  # 3, 3 and 2 of 8 lanes
    assert three.compute_seconds == pytest.approx(0.3 + 0.1)  # 300 of 800 rows, not 267


def test_ranks_beyond_batch_or_lanes_are_refused_by_the_plan_itself() -> None:
    with pytest.raises(DatasetError, match="world_size=16 is more than lanes=8"):
        model().on(16)
    with pytest.raises(DatasetError, match="batch_size=4 is fewer rows than world_size=8"):
        model(batch=4).on(8)


def test_a_hundred_thousand_million_rows_on_a_thousand_ranks_are_planned_in_seconds() -> None:
    table = even_table(10**11 + 7, 50_000, 31.0, 64.0)
    assert table.num_rows == 10**11 + 7
    plan = Plan(table.rows_per_group, 2**20, 0, 0, lanes=1024)
    large = Model(table, plan, 1, Speed(1e6, 0.01, 10**7), Machine(8, 8, network_bytes_per_second=12.5e9))
    many = large.on(1024)
    assert many.steps_per_epoch == -(-table.num_rows // 2**20)
    assert many.machines == 128
    assert many.most_rows - many.least_rows <= 1
    assert many.most_rows == -(-table.num_rows // 1024)
    assert many.read_bytes == pytest.approx(31.0 * table.num_rows / 1024, rel=0.002)
    ladder = [large.on(2**power) for power in range(11)]
    assert all(few.hours > more.hours for few, more in pairwise(ladder))
    assert all(few.efficiency > more.efficiency for few, more in pairwise(ladder))


def test_what_is_recommended_is_the_cheapest_in_time_or_the_fastest_for_the_money() -> None:
    rows = [model().on(ranks) for ranks in (1, 2, 4, 8)]
    hours, money = [row.hours for row in rows], [row.money or 0.0 for row in rows]
    # Two ranks of a machine cost less than one of it: the machine is paid for anyway.
    assert money[1] < money[2] < money[0] < money[3]
    assert recommended(rows, hours=hours[0]) is rows[1]
    assert recommended(rows, hours=hours[2]) is rows[2]
    assert recommended(rows, hours=hours[3] * 0.9) is None
    assert recommended(rows, budget=money[2]) is rows[2]
    assert recommended(rows, budget=money[1] * 0.9) is None
    assert recommended(rows, hours=hours[2], budget=money[1]) is None
    assert recommended(rows) is rows[1]  # efficiencies 1, 0.88, 0.54: the most with at least 0.8


@pytest.mark.parametrize("step_seconds", [0.0, 0.004])
def test_speed_is_fitted_to_runs_of_one_rank(step_seconds: float) -> None:
    runs = [
        (rows, steps, rows / 5000 + steps * step_seconds) for rows, steps in ((10_000, 20), (10_000, 3), (40_000, 80))
    ]
    fitted = Speed.fitted(runs, 7)
    assert fitted.rows_per_second == pytest.approx(5000)
    assert fitted.step_seconds == pytest.approx(step_seconds, abs=1e-9)
    alike = Speed.fitted(runs[:1], 7)
    assert alike.rows_per_second == pytest.approx(10_000 / runs[0][2])
    assert (alike.step_seconds, alike.parameters) == (0.0, 7)
