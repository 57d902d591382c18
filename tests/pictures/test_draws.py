"""Random numbers of rows: those that numpy draws for each row by itself."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlspark.pictures.draws import draw


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 10**6),
    rows=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=0, max_size=6),
    counts=st.lists(st.integers(1, 13), min_size=1, max_size=3),
    place=st.integers(0, 2**64 - 1),
)
def test_each_row_has_the_numbers_that_numpy_draws_for_it_alone(seed, epoch, rows, counts, place):
    drawn = draw(seed, epoch, np.array(rows, np.int64), counts, place=place)
    assert [numbers.shape for numbers in drawn] == [(len(rows), count) for count in counts]
    for purpose, numbers in enumerate(drawn):
        for row, values in zip(rows, numbers, strict=True):
            philox = np.random.Philox(
                key=np.array([seed, epoch], np.uint64),
                counter=np.array([0, row % 2**64, purpose, place], np.uint64),
            )
            np.testing.assert_array_equal(values, np.random.Generator(philox).random(numbers.shape[1]))


def test_many_rows_at_once_are_even_and_unlike() -> None:
    rows = np.arange(20_000)
    first, second = draw(1, 0, rows, [2, 4])
    assert abs(first.mean() - 0.5) < 0.01
    assert len(np.unique(np.concatenate([first.ravel(), second.ravel()]))) == 6 * len(rows)
    np.testing.assert_array_equal(draw(1, 0, rows[777:779], [2])[0], first[777:779])
    assert (draw(1, 1, rows, [2])[0] != first).all()  # another epoch
    assert (draw(2, 0, rows, [2])[0] != first).all()  # another seed
