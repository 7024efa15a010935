"""Features of tasks that go together, and what one of them says beyond the others.

Legend: D task, F feature, X expert of any layer, B permutation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.correlation import checked_features, correlated_routes, standardized, task_features
from analysis.nulls import p_value
from routing.trace import RoutingTrace

__all__ = ["feature_overlap", "partial_correlation", "strongest_experts"]


def feature_overlap(trace: RoutingTrace, *, features: pd.DataFrame | None = None) -> xr.DataArray:
    """Pearson correlation of features with each other over tasks: what cannot be told apart.

    Args:
        trace: the trace.
        features: index task, a numeric column each; by default the task types that several tasks share.

    Returns:
        (feature, other) · correlation · −1 to 1; NaN for a feature that does not vary.

    Raises:
        SelectionError: the features lack a task of the trace, or are not numbers.
    """
    table = checked_features(task_features(trace) if features is None else features, trace.tasks)
    scaled_DF = standardized(table.to_numpy(dtype=float))
    varies = (scaled_DF != 0).any(axis=0)
    r = np.where(varies[:, None] & varies, scaled_DF.T @ scaled_DF, np.nan)
    names = [str(name) for name in table.columns]
    return xr.DataArray(
        r, dims=("feature", "other"), coords={"feature": names, "other": names}, attrs={"unit": "correlation"}
    )


def partial_correlation(
    trace: RoutingTrace,
    *,
    features: pd.DataFrame | None = None,
    routes: xr.DataArray | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Correlation of experts with each feature, once what the other features explain is taken from both.

    The null permutes what is left of the experts between tasks, adds back what the other features explain, and looks
    at the largest |r| over all experts (Freedman and Lane).

    Args:
        trace: the trace.
        features: index task, a numeric column each; by default the task types that several tasks share.
        routes: (task, layer, expert), as `task_routes` gives them, instead of the recorded rates.
        n_permutations: for the null.
        seed: of the permutations.

    Returns:
        (feature, layer, expert) · r, p_value; (feature) · null_95, left · r −1 to 1; NaN where the other features leave
        nothing: types of which every task has one say nothing beyond each other.

    Raises:
        SelectionError: the features lack a task, or are not numbers.

    References:
        Freedman & Lane 1983; Winkler et al. 2014, "Permutation inference for the general linear model".
    """
    tasks, layers, values_DLE = correlated_routes(trace, routes)
    table = checked_features(task_features(trace) if features is None else features, tasks)
    value_DF, value_DX = table.to_numpy(dtype=float), values_DLE.reshape(len(tasks), -1)
    known_X = np.isfinite(value_DX).all(axis=0)
    shape = (len(table.columns), *values_DLE.shape[1:])
    r, p = np.full((shape[0], value_DX.shape[1]), np.nan), np.full((shape[0], value_DX.shape[1]), np.nan)
    null_95, left = np.full(shape[0], np.nan), np.full(shape[0], np.nan)
    for number in range(shape[0]):
        others = np.column_stack([np.ones(len(tasks)), np.delete(value_DF, number, axis=1)])
        maker_DD = np.eye(len(tasks)) - others @ np.linalg.pinv(others)
        rest_D = maker_DD @ value_DF[:, number]
        spread = value_DF[:, number].std() * np.sqrt(len(tasks))
        left[number] = np.linalg.norm(rest_D) / spread if spread > 0 else np.nan
        if not left[number] > 1e-6:
            continue
        unit_D = rest_D / np.linalg.norm(rest_D)
        rest_DX = maker_DD @ np.where(known_X, value_DX, 0.0)
        length_X = np.linalg.norm(rest_DX, axis=0)
        there_X = known_X & (length_X > 1e-9)
        r[number, there_X] = (unit_D @ rest_DX[:, there_X]) / length_X[there_X]
        if n_permutations and there_X.any():
            largest_B = _largest(unit_D, rest_DX[:, there_X], maker_DD, n_permutations=n_permutations, seed=seed)
            reached = (largest_B[:, None] >= np.abs(r[number, there_X]) - 1e-9).sum(axis=0)
            p[number, there_X] = p_value(reached, n_permutations=n_permutations)
            null_95[number] = np.quantile(largest_B, 0.95)
    dims = ("feature", "layer", "expert")
    return xr.Dataset(
        {
            "r": (dims, r.reshape(shape), {"unit": "correlation"}),
            "p_value": (dims, p.reshape(shape), {"unit": "probability"}),
            "null_95": ("feature", null_95, {"unit": "correlation"}),
            "left": ("feature", left, {"unit": "share of the feature's spread"}),
        },
        coords={
            "feature": [str(name) for name in table.columns],
            "layer": layers,
            "expert": np.arange(shape[2]),
        },
        attrs={"n_tasks": len(tasks), "n_permutations": n_permutations, "seed": seed},
    )


def strongest_experts(found: xr.Dataset, *, n: int = 3) -> pd.DataFrame:
    """The experts that each feature correlates with most, whatever the sign.

    Args:
        found: what `feature_correlation` or `partial_correlation` gave.
        n: how many of each feature.

    Returns:
        (row) · feature, layer, expert, r, p_value · correlation −1 to 1; largest |r| of a feature first.
    """
    table = found[["r", "p_value"]].to_dataframe()[["r", "p_value"]].dropna(subset="r").reset_index()
    table["size"] = table["r"].abs()
    order = {name: place for place, name in enumerate(found["feature"].values.tolist())}
    table["place"] = table["feature"].map(order)
    table = table.sort_values(["place", "size"], ascending=[True, False], kind="stable").groupby("place").head(n)
    frame = table[["feature", "layer", "expert", "r", "p_value"]].reset_index(drop=True)
    frame.attrs["unit"] = {"r": "correlation", "p_value": "probability"}
    return frame


def _largest(
    unit_D: np.ndarray, rest_DX: np.ndarray, maker_DD: np.ndarray, *, n_permutations: int, seed: int
) -> np.ndarray:
    """(B,) largest |r| over experts under each permutation."""
    rng = np.random.default_rng(seed)
    largest = np.empty(n_permutations)
    for number in range(n_permutations):
        moved_DX = maker_DD @ rest_DX[rng.permutation(len(unit_D))]
        length_X = np.linalg.norm(moved_DX, axis=0)
        largest[number] = np.abs((unit_D @ moved_DX) / np.where(length_X > 1e-9, length_X, np.inf)).max()
    return largest
