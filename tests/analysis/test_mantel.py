"""Mantel's test by hand, against the obvious version, planted and null."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from analysis import mantel
from routing.errors import SelectionError


def alike(seed, n):
    values = np.random.default_rng(seed).normal(size=(n, 3))
    return values @ values.T


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 6))
def test_it_agrees_with_the_obvious_version(seed, n):
    one, other = alike(seed, n), alike(seed + 1, n)
    found = mantel(one, other, n_permutations=720)
    rows = np.triu_indices(n, 1)
    assert found.rho == pytest.approx(spearmanr(one[rows], other[rows]).statistic)
    assert found.exact
    null = [
        spearmanr(one[rows], other[np.ix_(order, order)][rows]).statistic for order in map(list, permutations(range(n)))
    ]
    # Every naming is tried, the observed one among them.
    assert found.p_value == pytest.approx(np.mean(np.array(null) >= found.rho - 1e-9))


def test_by_hand():
    # Four items: {0, 1} and {2, 3} are alike. Of 24 namings 8 keep the two pairs.
    one = np.array([[1, 0.9, 0, 0], [0.9, 1, 0, 0], [0, 0, 1, 0.9], [0, 0, 0.9, 1]])
    found = mantel(one, one)
    assert (found.rho, found.n_items, found.exact) == (pytest.approx(1), 4, True)
    assert found.p_value == pytest.approx(8 / 24)


def test_invariance_to_names_and_monotone_scale():
    one, other = alike(0, 12), alike(0, 12) + 0.5 * alike(1, 12)
    order = np.random.default_rng(2).permutation(12)
    plain = mantel(one, other, n_permutations=200)
    moved = mantel(one[np.ix_(order, order)], np.exp(other[np.ix_(order, order)]), n_permutations=200)
    assert moved.rho == pytest.approx(plain.rho)
    assert plain.p_value < 0.05
    assert not plain.exact


def test_null_p_values_are_even():
    found = [mantel(alike(seed, 9), alike(seed + 500, 9), n_permutations=99).p_value for seed in range(150)]
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.12
    assert 0.4 < np.mean(found) < 0.6


def test_items_without_numbers_are_left_out():
    one, other = alike(3, 7), alike(3, 7)
    one[2, :] = one[:, 2] = np.nan
    found = mantel(one, other)
    assert (found.n_items, round(found.rho, 6)) == (6, 1)
    for few in (mantel(one[:3, :3], other[:3, :3]), mantel(np.ones((5, 5)), other[:5, :5])):
        assert np.isnan(few.rho)
        assert np.isnan(few.p_value)
    with pytest.raises(SelectionError, match="square"):
        mantel(one[:3], other)
