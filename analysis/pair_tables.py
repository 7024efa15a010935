"""Tables of pairs of experts: how much oftener than by chance, how sure that is, and which pairs are called.

Legend: E expert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from analysis.jackknife import jackknife_spread, two_sided_p

__all__ = ["FEWEST", "HALF", "LARGEST_TABLE", "LIFT_COLUMNS", "lift_columns", "pair_table", "spread_of_lift"]

LARGEST_TABLE = 1 << 24
"""Cells of the largest table of pairs held for a chunk; more layers are counted in further scans."""

FEWEST = 5.0
"""Tokens that chance must give a pair for it to be tested."""

HALF = 0.5
"""Of a token, added to what was counted and to what chance gives, so that nothing is divided by zero."""

LIFT_COLUMNS = {
    "lift": "log2 ratio",
    "lift_low": "log2 ratio",
    "lift_high": "log2 ratio",
    "z": "standard errors",
    "p_value": "probability",
}
"""What `lift_columns` gives, and its units."""

_Z_95 = 1.96


def spread_of_lift(left_out: Sequence[np.ndarray], *, like: np.ndarray) -> np.ndarray:
    """Standard error of lifts, from the lifts with one block of prompts left out each; NaN where there are none."""
    return jackknife_spread(np.array(left_out)) if len(left_out) else np.full(like.shape, np.nan)


def lift_columns(
    lift_EE: np.ndarray, spread_EE: np.ndarray, *, tested_EE: np.ndarray, n_blocks: int
) -> dict[str, np.ndarray]:
    """A lift with its 95 % interval, and its test where there is one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z_EE = lift_EE / spread_EE
    tested_EE = tested_EE & (spread_EE > 1e-9)
    return {
        "lift": lift_EE,
        "lift_low": lift_EE - _Z_95 * spread_EE,
        "lift_high": lift_EE + _Z_95 * spread_EE,
        "z": np.where(tested_EE, z_EE, np.nan),
        "p_value": np.where(tested_EE, two_sided_p(z_EE, n_blocks=n_blocks), np.nan),
    }


def pair_table(
    found: Mapping[str, np.ndarray],
    q: np.ndarray,
    *,
    dims: tuple[str, ...],
    units: Mapping[str, str],
    coords: Mapping[str, Any],
    fdr: float,
    smallest: float,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """A labelled table of pairs in which q ≤ `fdr` with |lift| ≥ `smallest` is called significant.

    Args:
        found: what was found of each pair, "lift" among it.
        q: false-discovery rate of each pair.
        dims: of all of them.
        units: by name.
        coords: names along the dims.
        fdr: share of false ones to accept.
        smallest: effect below which nothing is called, in log2.
        attrs: what else the table says of itself.

    Returns:
        `dims` · what was found, q_value, significant · as `units` say.
    """
    variables = {name: (dims, values, {"unit": units[name]}) for name, values in found.items()}
    variables["q_value"] = (dims, q, {"unit": "false-discovery rate"})
    with np.errstate(invalid="ignore"):
        called = (q <= fdr) & (np.abs(found["lift"]) >= smallest)
    variables["significant"] = (dims, called, {"unit": f"q at most {fdr} and |lift| at least {smallest}"})
    return xr.Dataset(variables, coords=dict(coords), attrs={**attrs, "fdr": fdr})
