"""Labelled arrays as a plain array and a JSON description beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["described", "labelled_again"]


def described(table: xr.DataArray) -> dict[str, Any]:
    """Axes, coordinates and attributes of a labelled array, as JSON can say them."""
    coords = {
        str(name): {"dims": list(coord.dims), "values": coord.values.tolist()} for name, coord in table.coords.items()
    }
    return {"dims": list(table.dims), "coords": coords, "attrs": dict(table.attrs)}


def labelled_again(values: np.ndarray, about: Mapping[str, Any]) -> xr.DataArray:
    """The labelled array that was described.

    Returns:
        dims as described · unit as described · range of the values.
    """
    coords = {name: (each["dims"], each["values"]) for name, each in about["coords"].items()}
    return xr.DataArray(values, dims=about["dims"], coords=coords, attrs=about.get("attrs", {}))
