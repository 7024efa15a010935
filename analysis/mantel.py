"""Whether two tables of likeness of the same things tell the same story: Mantel's test.

Legend: N item, B permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
import xarray as xr

from analysis.nulls import p_value
from routing.errors import SelectionError

__all__ = ["MantelTest", "mantel"]

FEWEST_ITEMS = 4


@dataclass(frozen=True, kw_only=True)
class MantelTest:
    """How far two square tables agree.

    Attributes:
        rho: rank correlation of their triangles.
        p_value: how often other names for the items of one table agree as well.
        null_95: 95th percentile of the correlation under other names.
        n_items: items in both tables.
        exact: whether every way of naming was tried, rather than some at random.
    """

    rho: float
    p_value: float
    null_95: float
    n_items: int
    exact: bool


def mantel(
    one: np.ndarray | xr.DataArray, other: np.ndarray | xr.DataArray, *, n_permutations: int = 5000, seed: int = 0
) -> MantelTest:
    """Whether pairs of items that are alike in one table are alike in another.

    ρ is Spearman's correlation of the two upper triangles. Pairs share items, so they are not independent, and the null
    names the items of one table anew, rows and columns together. One-sided: only agreement counts. Where there are no
    more ways of naming than `n_permutations`, every one is tried. Items for which a value is missing are left out.

    Args:
        one: (item, item), symmetric.
        other: the same items in the same order.
        n_permutations: ways of naming to try.
        seed: of the permutations.

    Returns:
        (no dimension) · MantelTest of a rank correlation · −1 to 1; NaN for fewer than four items or where a table does
        not vary.

    Raises:
        SelectionError: the tables are not square, or of different size.

    References:
        Mantel 1967, "The detection of disease clustering and a generalized regression approach".
    """
    first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if first.ndim != 2 or first.shape != second.shape or first.shape[0] != first.shape[1]:
        msg = f"Tables of shape {first.shape} and {second.shape} were given. Give two square ones over the same items."
        raise SelectionError(msg)
    kept = _complete(np.isfinite(first) & np.isfinite(second))
    first, second = first[np.ix_(kept, kept)], second[np.ix_(kept, kept)]
    n_items = len(kept)
    nothing = MantelTest(rho=np.nan, p_value=np.nan, null_95=np.nan, n_items=n_items, exact=False)
    if n_items < FEWEST_ITEMS:
        return nothing
    row, column = np.triu_indices(n_items, 1)
    fixed, moved_NN = _standardized(_ranks(first[row, column])), np.zeros((n_items, n_items))
    moved_NN[row, column] = _standardized(_ranks(second[row, column]))
    moved_NN += moved_NN.T
    if not fixed.any() or not moved_NN.any():
        return nothing
    rho = float(fixed @ moved_NN[row, column])
    exact = n_items < 20 and factorial(n_items) <= n_permutations
    if exact:
        orders = np.array(list(permutations(range(n_items))))[1:]  # all but the observed naming
    else:
        rng = np.random.default_rng(seed)
        orders = rng.permuted(np.tile(np.arange(n_items), (n_permutations, 1)), axis=1)
    null = np.array([fixed @ moved_NN[order[row], order[column]] for order in orders])
    reached = int((null >= rho - 1e-12).sum())
    return MantelTest(
        rho=rho,
        p_value=float(p_value(reached, n_permutations=len(null))) if len(null) else np.nan,
        null_95=float(np.quantile(null, 0.95)) if len(null) else np.nan,
        n_items=n_items,
        exact=exact,
    )


def _complete(known: np.ndarray) -> np.ndarray:
    """Items that are left once those with most missing values are gone, until none is missing."""
    kept = np.arange(len(known))
    missing = ~known
    np.fill_diagonal(missing, val=False)
    while len(kept) and missing[np.ix_(kept, kept)].any():
        n_missing = (missing | missing.T)[np.ix_(kept, kept)].sum(axis=1)
        kept = np.delete(kept, int(n_missing.argmax()))
    return kept


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    found: np.ndarray = rankdata(values)
    return found


def _standardized(values: np.ndarray) -> np.ndarray:
    centered = values - values.mean()
    length = float(np.sqrt((centered**2).sum()))
    return centered / length if length > 1e-12 else np.zeros(len(values))
