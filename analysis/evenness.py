"""How evenly experts serve tasks, and tasks use experts: what heatmaps are ordered by."""

from __future__ import annotations

import numpy as np
import xarray as xr

__all__ = ["evenness_of_experts", "evenness_of_groups"]


def evenness_of_experts(rate: xr.DataArray) -> xr.DataArray:
    """How evenly groups use each expert: the entropy of its rate over groups, each group weighing the same.

    Args:
        rate: (group, layer, expert) · share of tokens, as `specialization` gives it.

    Returns:
        (layer, expert) · entropy over that of an even use · 0 one group alone to 1 all alike; NaN for an expert that
        nobody chose, or where there is one group.
    """
    return _evenness(rate, dim="group")


def evenness_of_groups(rate: xr.DataArray) -> xr.DataArray:
    """How evenly each group uses the experts of a layer, the mean over layers.

    Args:
        rate: (group, layer, expert) · share of tokens, as `specialization` gives it.

    Returns:
        (group) · entropy over that of an even use · 0 one expert a layer to 1 all alike; NaN where nothing was routed.
    """
    return _evenness(rate, dim="expert").mean("layer")


def _evenness(rate: xr.DataArray, *, dim: str) -> xr.DataArray:
    known = rate.where(rate >= 0)
    n_known = known.notnull().sum(dim)
    total = known.sum(dim)
    share = known / total.where(total > 0)
    entropy = -(share * np.log(share.where(share > 0))).sum(dim)
    found = (entropy / np.log(n_known.where(n_known > 1))).where(total > 0)
    return found.assign_attrs(unit="entropy over that of an even use")
