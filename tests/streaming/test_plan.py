"""Properties of the plan: pure integers, no files."""

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
    waiting: dict[int, list[int]] = {stream: [] for stream in share.streams}
    found = plan.segments(share.streams)
    for stream, group, start, stop in zip(found.stream, found.group, found.start, found.stop, strict=True):
        first = int(group_starts[group])
        waiting[int(stream)] += range(first + int(start), first + int(stop))
    rows: list[int] = []
    for block in range(share.num_blocks):
        laid_out: list[int] = []
        for stream, count in share.block_streams(block):
            laid_out += waiting[stream][:count]
            del waiting[stream][:count]
        rows += [laid_out[place] for place in share.block_order(block)]
    assert not any(waiting.values())
    return np.array(rows)


@settings(max_examples=200, deadline=None)
@given(LAYOUTS, st.sampled_from([1, 2, 4, 8]), st.integers(1, 60), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_ranks_together_give_one_order_that_no_world_size_changes(sizes, world_size, window, seed, epoch, shuffle):
    plan = Plan(
        np.array(sizes), global_batch_size=8, seed=seed, epoch=epoch, shuffle_window_rows=window, shuffle=shuffle
    )
    alone = epoch_rows(plan, 0, 1)
    assert sorted(alone) == list(range(sum(sizes)))
    for rank in range(world_size):
        assert epoch_rows(plan, rank, world_size).tolist() == alone[rank::world_size].tolist()


@settings(max_examples=100, deadline=None)
@given(LAYOUTS, st.integers(1, 60), st.integers(0, 5), st.integers(0, 20))
def test_segments_from_a_later_window_are_what_is_left_of_the_whole(sizes, window, seed, first):
    plan = Plan(np.array(sizes), global_batch_size=8, seed=seed, epoch=0, shuffle_window_rows=window)
    for stream in range(plan.streams):
        start, stop = plan.stream_bounds(stream)
        segments = plan.segments(range(stream, stream + 1), first)
        rest = int((segments.stop - segments.start).sum())
        assert rest == max(0, stop - start - first * plan.window_rows)


def test_order_differs_between_epochs_and_seeds():
    orders = {
        epoch_rows(Plan(np.array([50] * 4), global_batch_size=8, seed=seed, epoch=epoch), 0, 1).tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


@pytest.mark.parametrize(
    ("sizes", "batch", "world_size", "message"),
    [
        ([100], 9, 3, "world size 3 does not divide streaming.streams=8"),
        ([100], 9, 2, "training.global_batch_size=9 is no multiple of the world size 2"),
        ([3], 8, 4, "3 rows are too few for 4 ranks"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(sizes, batch, world_size, message):
    plan = Plan(np.array(sizes), global_batch_size=batch, seed=0, epoch=0)
    with pytest.raises(DatasetError, match=message):
        RankPlan(plan, 0, world_size)
