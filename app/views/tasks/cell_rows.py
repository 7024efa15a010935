"""The cells of the task heatmap as a table: its twin for readers who do not look at colors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["cell_rows"]

_COLUMNS = ("rate", "lift", "z", "p_value", "q_value", "significant")


def cell_rows(special: xr.Dataset, *, groups: Sequence[str], experts: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """The cells that are shown, those beyond chance first, the strongest first.

    Args:
        special: lifts and rates with their test, as `specialization` gives them.
        groups: rows of the heatmap.
        experts: its columns.
    """
    shown = special.sel(group=list(groups))
    numbers = {str(label): number for number, label in enumerate(special["layer"].values)}
    # Picked by place: of millions of cells, an index of names would take seconds.
    places = sorted((numbers[layer], expert) for layer, expert in experts)
    at_layer, at_expert = np.array(places, dtype=int).reshape(-1, 2).T
    found = {
        name: shown[name].transpose("group", "layer", "expert").to_numpy()[:, at_layer, at_expert].ravel()
        for name in _COLUMNS
    }
    known = np.flatnonzero(~np.isnan(found["rate"]))
    strength = np.abs(found["lift"][known])
    weakest_last = np.where(np.isfinite(strength), -strength, np.inf)
    order = known[np.lexsort((weakest_last, ~found["significant"][known].astype(bool)))]
    row, column = np.divmod(order, len(at_layer)) if len(at_layer) else (order, order)
    of_group = {
        str(name): _taken(coord.to_numpy(), row)
        for name, coord in shown.coords.items()
        if coord.dims == ("group",) and name != "group"
    }
    names = {
        str(special.attrs.get("over", "group")): _taken(shown["group"].to_numpy(), row),
        "layer": _taken(special["layer"].to_numpy(), at_layer[column]),
        "expert": special["expert"].to_numpy()[at_expert[column]],
    }
    return pd.DataFrame(names | {name: values[order] for name, values in found.items()} | of_group)


def _taken(values: np.ndarray, at: np.ndarray) -> pd.Series:
    if values.dtype.kind in "biuf":
        return pd.Series(values[at])
    return pd.Series(list(values)).take(at).reset_index(drop=True)
