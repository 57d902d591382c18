"""Properties of the plan: pure integers, no files."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlspark.errors import DatasetError
from mlspark.streaming.plan import Plan, RankPlan

LAYOUTS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) >= 8)


def epoch_rows(plan: Plan, rank: int, world_size: int) -> np.ndarray:
    """The table rows of a rank in its order, by walking the plan as a reader does."""
    share = RankPlan(plan, rank, world_size)
    group_starts = np.cumsum(plan.rows_per_group) - plan.rows_per_group
    waiting: dict[int, list[int]] = {lane: [] for lane in share.lanes}
    found = plan.segments(share.lanes)
    for lane, group, start, stop in zip(found.lane, found.group, found.start, found.stop, strict=True):
        first = int(group_starts[group])
        waiting[int(lane)] += range(first + int(start), first + int(stop))
    rows: list[int] = []
    for block in range(share.num_blocks):
        laid_out: list[int] = []
        for lane, count in share.block_lanes(block):
            laid_out += waiting[lane][:count]
            del waiting[lane][:count]
        rows += [laid_out[place] for place in share.block_order(block)]
    assert not any(waiting.values())
    return np.array(rows)


@settings(max_examples=200, deadline=None)
@given(LAYOUTS, st.integers(1, 8), st.integers(1, 60), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_ranks_together_give_one_order_that_no_world_size_changes(sizes, world_size, window, seed, epoch, shuffle):
    plan = Plan(np.array(sizes), batch_size=8, seed=seed, epoch=epoch, shuffle_window_rows=window, shuffle=shuffle)
    alone = epoch_rows(plan, 0, 1)
    assert sorted(alone) == list(range(sum(sizes)))
    lane = np.arange(len(alone)) % plan.lanes
    for rank in range(world_size):
        assert epoch_rows(plan, rank, world_size).tolist() == alone[lane % world_size == rank].tolist()


@settings(max_examples=100, deadline=None)
@given(LAYOUTS, st.integers(1, 60), st.integers(0, 5), st.integers(0, 20))
def test_segments_from_a_later_window_are_what_is_left_of_the_whole(sizes, window, seed, first):
    plan = Plan(np.array(sizes), batch_size=8, seed=seed, epoch=0, shuffle_window_rows=window)
    for lane in range(plan.lanes):
        start, stop = plan.lane_bounds(lane)
        segments = plan.segments(range(lane, lane + 1), first)
        rest = int((segments.stop - segments.start).sum())
        assert rest == max(0, stop - start - first * plan.window_rows)


def test_order_differs_between_epochs_and_seeds():
    orders = {
        epoch_rows(Plan(np.array([50] * 4), batch_size=8, seed=seed, epoch=epoch), 0, 1).tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


@pytest.mark.parametrize(
    ("sizes", "batch", "world_size", "message"),
    [
        ([100], 9, 9, "world_size=9 is more than lanes=8; set lanes to at least 9"),
        ([100], 1, 2, "batch_size=1 is fewer rows than world_size=2 ranks"),
        ([0, 0], 8, 4, "there are no rows to stream"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(sizes, batch, world_size, message):
    plan = Plan(np.array(sizes), batch_size=batch, seed=0, epoch=0)
    with pytest.raises(DatasetError, match=message):
        RankPlan(plan, 0, world_size)


@settings(max_examples=200, deadline=None)
@given(
    LAYOUTS,
    st.integers(1, 6),
    st.integers(6, 60),
    st.integers(1, 60),
    st.sampled_from(["keep", "drop"]),
    st.integers(0, 3),
)
def test_every_rank_takes_equal_steps_that_hold_every_row(sizes, world_size, batch, window, remainder, seed):
    plan = Plan(
        np.array(sizes),
        batch_size=batch,
        seed=seed,
        epoch=1,
        lanes=6,
        shuffle_window_rows=window,
        remainder=remainder,
    )
    assert plan.num_steps == (-(-sum(sizes) // batch) if remainder == "keep" else sum(sizes) // batch)
    if not plan.num_steps:
        return
    alone, lane = epoch_rows(plan, 0, 1), np.arange(sum(sizes)) % plan.lanes
    for rank in range(world_size):
        share = RankPlan(plan, rank, world_size)
        rows, edges = epoch_rows(plan, rank, world_size), share.step_edges(0, plan.num_steps)
        assert share.num_rows == len(rows)
        for step in range(plan.num_steps):
            of_step = slice(step * batch, (step + 1) * batch)
            expected = alone[of_step][lane[of_step] % world_size == rank]
            assert rows[edges[step] : edges[step + 1]].tolist() == expected.tolist()


def displacement_and_correlation(order: np.ndarray) -> tuple[float, float]:
    """Mean distance that a row moved, as a share of the table (a full shuffle: 1/3), and correlation of neighbours."""
    moved = np.abs(np.argsort(order) - np.arange(len(order))).mean() / len(order)
    return float(moved), float(np.corrcoef(order[:-1], order[1:])[0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_shuffle_is_as_good_as_a_full_one_with_a_window_of_a_fiftieth_of_the_table(seed):
    sizes = np.full(200, 500)
    plan = Plan(sizes, batch_size=512, seed=seed, epoch=0, shuffle_window_rows=2000)
    moved, correlation = displacement_and_correlation(epoch_rows(plan, 0, 1))
    full_moved, _ = displacement_and_correlation(np.random.default_rng(seed).permutation(100_000))
    assert moved == pytest.approx(full_moved, rel=0.1)
    assert abs(correlation) < 0.15  # the lanes' neighbours are of different row groups
    unshuffled = Plan(sizes, batch_size=512, seed=seed, epoch=0, shuffle=False, lanes=1)
    assert displacement_and_correlation(epoch_rows(unshuffled, 0, 1)) == (0.0, pytest.approx(1.0))


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_fixed_lanes_keep_their_rows_and_change_their_order(epoch):
    def rows_of_lane(number: int) -> np.ndarray:
        plan = Plan(
            np.array([50] * 9),
            batch_size=8,
            seed=1,
            epoch=number,
            shuffle_window_rows=10**6,
            has_fixed_lanes=True,
        )
        return epoch_rows(plan, 3, 8)

    first, other = rows_of_lane(0), rows_of_lane(epoch + 1)
    assert sorted(first) == sorted(other)
    assert first.tolist() != other.tolist()


def test_plan_of_2_million_row_groups_takes_seconds_and_little_memory():
    sizes = np.full(2_000_000, 50_000)
    tracemalloc.start()
    started = time.process_time()
    plan = Plan(sizes, batch_size=2**20, seed=1, epoch=1, lanes=1024, shuffle_window_rows=400_000 * 1024)
    share = RankPlan(plan, 1023, 1024)
    segments = plan.segments(share.lanes)
    order = share.block_order(0)
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.num_rows == 10**11
    assert int((segments.stop - segments.start).sum()) == share.num_rows
    assert len(order) == share.block_rows
    assert seconds < 30
    assert peak < 500e6
