"""Several tables in one stream: shares, order, positions."""

import json
from collections import Counter
from fractions import Fraction

import deltalake
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlspark.errors import DatasetError
from mlspark.streaming.mixture import Mixture, Part, open_mixture, shares


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Part]:
    tables = []
    for number, rows in enumerate((600, 150, 90)):
        folder = str(tmp_path_factory.mktemp("part"))
        properties = deltalake.WriterProperties(max_row_group_size=50, write_batch_size=50)
        ids = [1000 * number + row for row in range(rows)]
        deltalake.write_deltalake(folder, pa.table({"id": ids}), writer_properties=properties)
        tables.append(folder)
    return [Part(table, weight, {}) for table, weight in zip(tables, (5, 2, 1), strict=True)]


def mixed(parts, **options) -> Mixture:
    return open_mixture(parts, **({"batch_size": 64, "shuffle_window_rows": 80, "seed": 1} | options))


def steps_of(mixture: Mixture) -> list[list[int]]:
    return [batch["id"].tolist() for batch in mixture]


@settings(deadline=None)
@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5), st.sampled_from([1, 2, 8]), st.integers(20, 60))
def test_shares_sum_to_the_batch_and_are_nearest_to_the_weights(weights, unit, units):
    try:
        rows = shares(weights, unit * units, unit)
    except DatasetError:
        assert min(weights) / sum(weights) * units < 1
        return
    assert sum(rows) == unit * units
    total = sum(map(Fraction, weights))
    for weight, count in zip(weights, rows, strict=True):
        assert count % unit == 0
        assert abs(count - Fraction(weight) * unit * units / total) < unit


@pytest.mark.parametrize(("stop", "num_steps"), [("first", 9), ("last", 15)])
def test_every_batch_has_its_share_of_each_table(parts, stop, num_steps):
    with mixed(parts, stop=stop) as mixture:
        assert mixture.rows == (40, 16, 8)
        batches = list(mixture)
    assert len(batches) == num_steps == len(mixture)  # 600 // 40 = 15, 150 // 16 = 9, 90 // 8 = 11
    for batch in batches:
        assert (batch["id"] // 1000).tolist() == batch["table"].tolist()
        assert Counter(batch["table"].tolist()) == {0: 40, 1: 16, 2: 8}
        assert not batch["is_padding"].any()
    times = Counter(row for batch in batches for row in batch["id"].tolist())
    assert max(times.values()) == (1 if stop == "first" else 2)


@pytest.mark.parametrize("world_size", [2, 3, 5, 8])
def test_other_world_sizes_see_the_same_batches(parts, world_size):
    with mixed(parts) as alone:
        expected = [sorted(step) for step in steps_of(alone)]
    ranks = []
    for rank in range(world_size):
        with mixed(parts, rank=rank, world_size=world_size) as mixture:
            ranks.append(steps_of(mixture))
    assert [sorted(sum(step, [])) for step in zip(*ranks, strict=True)] == expected


def test_epoch_that_is_broken_off_ends(parts):
    with mixed(parts, stop="last") as whole:
        epochs = [steps_of(whole) for _ in range(2)]
    with mixed(parts, stop="last") as mixture:
        next(iter(mixture))
        assert steps_of(mixture) == epochs[1]


@pytest.mark.parametrize("stop", ["first", "last"])
def test_resuming_at_any_step_of_any_epoch_goes_on(parts, stop):
    with mixed(parts, stop=stop) as whole:
        expected = [steps_of(whole) for _ in range(3)]
        places = [(epoch, step) for epoch in range(3) for step in range(0, whole.num_steps, 4)]
    for epoch, step in places:
        with mixed(parts, stop=stop) as mixture:
            state = mixture.state_dict() | {"epoch": epoch, "step": step}
            mixture.load_state_dict(json.loads(json.dumps(state)))
            assert steps_of(mixture) == expected[epoch][step:]
            assert (mixture.epoch, mixture.step) == (epoch + 1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 60}, "batch_size=60 of a mixture is no multiple of lanes=8"),
        ({"batch_size": 16}, r"batch_size=16 is too small for weights \[5, 2, 1\]: table 2 would have no row"),
    ],
)
def test_what_does_not_fit_is_refused(parts, change, message):
    with pytest.raises(DatasetError, match=message):
        mixed(parts, **change)


def test_weights_and_fields_must_fit(parts, tmp_path):
    with pytest.raises(DatasetError, match="weights of a mixture must be above 0"):
        shares([1.0, 0.0], 16, 8)
    deltalake.write_deltalake(str(tmp_path), pa.table({"other": range(100)}))
    with pytest.raises(DatasetError, match="have different fields"):
        mixed([*parts, Part(str(tmp_path), 1, {})])
    with (
        mixed(parts) as one,
        mixed(parts, stop="last") as other,
        pytest.raises(DatasetError, match="other stop: first"),
    ):
        other.load_state_dict(one.state_dict())
