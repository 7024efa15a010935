"""Do experts for a kind of task exist? Correlation of experts with features of tasks, against shuffled tasks.

Legend: S task, F feature, L layer, E expert, X expert of any layer, B permutation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.measure import about
from analysis.nulls import p_value
from analysis.rates import group_rates
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["checked_features", "correlated_routes", "feature_correlation", "standardized", "task_features"]

BATCH_CELLS = 1 << 22


def task_features(trace: RoutingTrace, *, min_tasks: int = 2) -> pd.DataFrame:
    """Which type each task is of, as columns of 0 and 1; types of fewer tasks, or of every task, are left out.

    Args:
        trace: the trace.
        min_tasks: fewest tasks of a type, from 1.

    Returns:
        (task) · one column a type, whether the task is of it · 0 or 1.
    """
    types = pd.Series(trace.task_types, dtype=object)
    table = pd.DataFrame(
        {name: (types == name).astype(float) for name in dict.fromkeys(types)}, index=list(types.index)
    )
    table.index.name = "task"
    table = table.loc[:, [min_tasks <= table[name].sum() < len(table) for name in table.columns]]
    table.attrs["unit"] = dict.fromkeys(table.columns, "0 or 1")
    return table


def feature_correlation(
    trace: RoutingTrace,
    *,
    features: pd.DataFrame | None = None,
    routes: xr.DataArray | None = None,
    n_permutations: int = 5000,
    seed: int = 0,
) -> xr.Dataset:
    """Pearson correlation over tasks of each expert's activation rate with features of the tasks.

    A task is one point: its activation rate is the mean over its prompts. With few tasks and many experts some
    expert correlates well with anything, so each r is compared with the largest |r| over all experts when the
    features are dealt to tasks at random (features of a task stay together).

    - `p_value`: how often the largest |r| over all experts, with that feature dealt at random, reaches this one.
    - `p_any`: the same with the largest |r| over all experts and features.
    - `null_95`, by feature: what the largest |r| reaches in one of twenty random deals.

    Args:
        trace: the trace.
        features: index task, a numeric column each; by default the task types that several tasks share.
        routes: (task, layer, expert), as `task_routes` gives them, instead of the recorded activation rates.
        n_permutations: deals for the null.
        seed: of the deals.

    Returns:
        (feature, layer, expert) · r, p_value, p_any; (feature) · null_95, n_tasks · r −1 to 1; NaN where the layer
        lacks the expert or all tasks use it alike.

    Raises:
        SelectionError: the features lack a task of the trace, or are not numbers.

    References:
        Ye, Zha & Ren 2022, "Eliciting and Understanding Cross-task Skills with Task-level Mixture-of-Experts";
        Westfall & Young 1993 (largest statistic over all tests).
    """
    given = task_features(trace) if features is None else features
    tasks, layers, rate_SLE = correlated_routes(trace, routes)
    table = checked_features(given, tasks)
    shape = rate_SLE.shape[1:]
    scaled_SX = standardized(rate_SLE.reshape(len(tasks), -1))
    there_X = (scaled_SX != 0).any(axis=0)
    feature_SF = standardized(table.to_numpy(dtype=float))
    r_FX = np.where(there_X, feature_SF.T @ scaled_SX, np.nan)
    varies_F = (feature_SF != 0).any(axis=0)
    r_FX[~varies_F] = np.nan
    p_FX, any_FX = np.full(r_FX.shape, np.nan), np.full(r_FX.shape, np.nan)
    null_95_F = np.full(len(table.columns), np.nan)
    if n_permutations and there_X.any() and varies_F.any():
        largest_BF = _largest(feature_SF, scaled_SX[:, there_X], n_permutations=n_permutations, seed=seed)
        absolute_FX = np.abs(r_FX) - 1e-9
        overall_B = np.sort(largest_BF[:, varies_F].max(axis=1))
        for number in np.flatnonzero(varies_F):
            own_B = np.sort(largest_BF[:, number])
            for p_values, sorted_B in ((p_FX, own_B), (any_FX, overall_B)):
                reached = n_permutations - np.searchsorted(sorted_B, absolute_FX[number], side="left")
                p_values[number] = p_value(reached, n_permutations=n_permutations)
            null_95_F[number] = np.quantile(own_B, 0.95)
        p_FX[np.isnan(r_FX)] = np.nan
        any_FX[np.isnan(r_FX)] = np.nan
    dims = ("feature", "layer", "expert")
    full = (len(table.columns), *shape)
    return xr.Dataset(
        {
            "r": (dims, r_FX.reshape(full), {"unit": "correlation"}),
            "p_value": (dims, p_FX.reshape(full), {"unit": "probability"}),
            "p_any": (dims, any_FX.reshape(full), {"unit": "probability"}),
            "null_95": ("feature", null_95_F, {"unit": "correlation"}),
            "n_tasks": ("feature", (table != 0).sum().to_numpy(), {"unit": "tasks"}),
        },
        coords={
            "feature": [str(name) for name in table.columns],
            "layer": layers,
            "expert": np.arange(shape[1]),
        },
        attrs={
            "n_tasks": len(tasks),
            "n_permutations": n_permutations,
            "seed": seed,
            "weighting": "tokens" if trace.level == "counts" and routes is None else "prompts",
            **(about(trace) | ({} if routes is None else {"measure": "routes"})),
        },
    )


def correlated_routes(
    trace: RoutingTrace, routes: xr.DataArray | None
) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """Names of tasks and layers, and (task, layer, expert) how much each task uses each expert."""
    if routes is None:
        return trace.tasks, list(trace.layers), group_rates(trace, over="task").rate_GLE
    tasks = tuple(str(name) for name in routes["task"].values)
    return tasks, [str(label) for label in routes["layer"].values], routes.to_numpy().astype(float)


def checked_features(features: pd.DataFrame, tasks: tuple[str, ...]) -> pd.DataFrame:
    """The features of these tasks as numbers, in their order.

    Raises:
        SelectionError: a task has no row, or a column holds no numbers.
    """
    if lacking := [task for task in tasks if task not in features.index]:
        msg = f"The features have no row for the tasks {lacking}. Give every task of the trace a row."
        raise SelectionError(msg)
    table = features.loc[list(tasks)]
    if wrong := [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]:
        msg = f"The features {wrong} are not numbers. Turn them into columns of 0 and 1."
        raise SelectionError(msg)
    return table.astype(float)


def standardized(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1, so that a product of two is their r; 0 where a column does not vary.

    A task that a layer did not route says nothing there: it is put at the mean.
    """
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centered = np.where(known, values - mean, 0.0)
    length = np.sqrt((centered**2).sum(axis=0))
    varies = length > 1e-9
    return np.where(varies, centered / np.where(varies, length, 1.0), 0.0)


def _largest(feature_SF: np.ndarray, scaled_SX: np.ndarray, *, n_permutations: int, seed: int) -> np.ndarray:
    """(B, F) largest |r| over experts of each feature dealt at random."""
    rng = np.random.default_rng(seed)
    n_tasks, n_features = feature_SF.shape
    step = max(1, BATCH_CELLS // (n_features * max(scaled_SX.shape[1], n_tasks)))
    parts = []
    for first in range(0, n_permutations, step):
        n_rows = min(step, n_permutations - first)
        order_BS = rng.permuted(np.tile(np.arange(n_tasks), (n_rows, 1)), axis=1)
        dealt_BFS = feature_SF[order_BS].transpose(0, 2, 1)
        r_BFX = dealt_BFS.reshape(-1, n_tasks) @ scaled_SX
        parts.append(np.abs(r_BFX).max(axis=1).reshape(n_rows, n_features))
    return np.concatenate(parts)
