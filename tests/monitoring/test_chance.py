"""What chance does: p-values held against scipy and statsmodels, and how often nothing that changed is an alarm."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportions_ztest

from mlspark.features import drift
from mlspark.monitoring import chance
from mlspark.tasks.intervals import Z95


def test_psi_p_value_is_that_of_the_chi_square_law_where_rows_are_many() -> None:
    """Yurdakul and Naranjo 2020: PSI / (1/n + 1/m) is chi-square with as many degrees of freedom as bins but one."""
    olds = (2_000, 4_000, 6_000, 8_000)
    for news in ((230, 420, 590, 760), (980, 1_830, 2_700, 3_490)):
        bins, num_new = list(zip(olds, news, strict=True)), sum(news)
        index = drift.psi(olds, news)
        expected = stats.chi2.sf(index / (1 / 20_000 + 1 / num_new), len(olds) - 1)
        assert 0.002 < expected < 0.1
        assert chance.of_psi(bins, level=1e-4) == pytest.approx(expected, rel=0.4)  # 50 of the draws are as large


def test_psi_p_value_is_small_where_shares_changed_and_is_the_same_again() -> None:
    bins = [(500, 10), (500, 90)]
    assert chance.of_psi(bins, level=1e-3) == chance.of_psi(bins, level=1e-3) == 1 / 2001
    assert chance.of_psi(bins, level=1e-5) == 1 / 100_001  # told as finely as the level asks
    assert chance.of_psi([(50, 5), (50, 5)], level=1e-3) == 1.0


@pytest.mark.parametrize("num_new", [50, 300])
def test_psi_passes_the_limit_by_chance_but_is_then_no_alarm(num_new: int) -> None:
    """40 categories, half of them rare: without a change the mean PSI of 50 rows is over 0.25."""
    random = np.random.default_rng(2)
    shares = random.dirichlet(np.full(40, 0.3))
    p_values, over = [], 0
    for _ in range(60):
        bins = list(zip(random.multinomial(30_000, shares), random.multinomial(num_new, shares), strict=True))
        over += drift.psi(*zip(*bins, strict=True)) >= drift.LARGE
        p_values.append(chance.of_psi(bins, level=0.01))
    assert (over > 55) == (num_new == 50)
    # 60 p-values of which 5 % are up to 0.05: more than 8 of them in 2 of 1,000 such tests.
    assert sum(p <= 0.05 for p in p_values) <= 8
    assert 10 <= sum(p <= 0.5 for p in p_values) <= 50


def test_shares_as_scipy_and_statsmodels_have_them() -> None:
    old, new = (300, 10_000), (55, 1_000)
    assert chance.of_share(old, new) == stats.fisher_exact([[55, 945], [300, 9_700]]).pvalue
    _, approximate = proportions_ztest([55, 300], [1_000, 10_000])
    assert chance.of_share(old, new) == pytest.approx(approximate, abs=2e-4)
    assert chance.of_share((0, 100), (0, 50)) == 1.0
    assert chance.of_share((10, 100), (0, 50), only_increase=True) == 1.0
    big = chance.of_share((10**8, 10**9), (10**6 + 3_000, 10**7))
    _, expected = proportions_ztest([10**6 + 3_000, 10**8], [10**7, 10**9])
    assert big == pytest.approx(expected, rel=0.01)


def test_unseen_values_by_hand() -> None:
    # One of 99 old rows is the only one of its value, so 2 of 99 are the share that is expected: 1 - (97/99)^3.
    assert chance.of_unseen(1, 3, single=1, num_old=99) == pytest.approx(1 - (97 / 99) ** 3)
    assert chance.of_unseen(0, 3, single=1, num_old=99) == 1.0
    assert chance.of_unseen(3, 3, single=1, num_old=1) == 1.0


def test_a_loss_is_that_of_two_means_with_known_errors() -> None:
    """Intervals of 1.96 standard errors: the z test of two means."""
    kept, now = (0.30 - Z95 * 0.01, 0.30 + Z95 * 0.01), (0.35 - Z95 * 0.02, 0.35 + Z95 * 0.02)
    expected = stats.norm.sf(0.05 / np.hypot(0.01, 0.02))
    assert chance.of_loss(0.30, kept, 0.35, now, lower_is_better=True) == pytest.approx(expected)
    assert chance.of_loss(0.30, kept, 0.35, now, lower_is_better=False) == pytest.approx(1 - expected)
    assert chance.of_loss(0.3, (0.3, 0.3), 0.4, (0.4, 0.4), lower_is_better=True) == 0.0
    assert chance.of_loss(0.3, (0.3, 0.3), 0.3, (0.3, 0.3), lower_is_better=True) == 1.0
