"""Who is nearest to whom in the space that a map was made from, not on the map."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.signatures import complete_items

__all__ = ["nearest_items"]


def nearest_items(signatures: xr.DataArray, *, item: int, n_nearest: int = 10) -> pd.DataFrame:
    """The items nearest to one by the Euclidean distance of their rows.

    Args:
        signatures: (item, feature), as `analysis.signatures` gives them.
        item: place of the one.
        n_nearest: how many.

    Returns:
        (neighbor) · item (its place), distance · the table's unit, ascending; `attrs["median"]` is the median
        over all other items. Empty where the item has no number.
    """
    values_IF, kept = complete_items(signatures)
    here = np.flatnonzero(kept == item)
    if not len(here):
        return pd.DataFrame({"item": np.zeros(0, int), "distance": np.zeros(0)})
    apart_I = np.linalg.norm(values_IF - values_IF[here[0]], axis=1)
    others = np.delete(np.arange(len(kept)), here[0])
    nearest = others[np.argsort(apart_I[others], kind="stable")[:n_nearest]]
    table = pd.DataFrame({"item": kept[nearest], "distance": apart_I[nearest]})
    table.attrs["median"] = float(np.median(apart_I[others])) if len(others) else np.nan
    return table
