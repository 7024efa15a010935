"""Experts against features of prompts: any column of the prompt table, or one that the user brings.

Legend: P prompt, F feature, X expert of any layer, B permutation, R resampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.intervals import interval_95
from analysis.nulls import PooledNull, p_value, q_values
from analysis.rates import draws_of_prompts, prompt_rates
from analysis.scan import require_tokens
from analysis.stratified import Tested, deal_labels
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["prompt_correlation", "prompt_features"]

MOST_VALUES = 20
"""Most values of a column that become features of their own."""


def prompt_features(trace: RoutingTrace, *, columns: Sequence[str] = ("task_type",)) -> pd.DataFrame:
    """Columns of the prompt table as numbers: a column of numbers as it is, any other as one column of 0 and 1 a value.

    Of more than 20 values the most frequent are taken. Values of a single prompt, or of all, are left out.

    Args:
        trace: the trace.
        columns: names of columns of `trace.prompts`; "n_tokens" is the length of the prompt's record.

    Returns:
        (prompt) · one column a feature · numbers; NaN where the table holds none.

    Raises:
        SelectionError: the prompt table has no such column.
    """
    table = trace.prompts
    parts: dict[str, pd.Series] = {}
    for column in columns:
        if column == "n_tokens" and column not in table:
            require_tokens(trace, for_what="the length of prompts")
            n_P = np.zeros(trace.n_prompts)
            for chunk in trace.chunks(fields=()):
                n_P += np.bincount(chunk.prompt, minlength=trace.n_prompts)
            parts[column] = pd.Series(n_P)
            continue
        if column not in table:
            msg = f"The prompt table has no column {column!r}; it has {list(table.columns)}. Choose among them."
            raise SelectionError(msg)
        values = table[column]
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            parts[str(column)] = values.astype(float)
            continue
        counts = values.astype("str").value_counts()
        for value in counts.index[:MOST_VALUES]:
            if 1 < counts[value] < len(table):
                name = str(value) if len(columns) == 1 else f"{column}: {value}"
                parts[name] = (values.astype("str") == value).astype(float).where(values.notna())
    frame = pd.DataFrame({name: part.to_numpy(float) for name, part in parts.items()}, index=table["prompt"].to_numpy())
    frame.index.name = "prompt"
    frame.attrs["unit"] = dict.fromkeys(frame.columns, "number")
    return frame


def prompt_correlation(
    trace: RoutingTrace,
    *,
    features: pd.DataFrame | None = None,
    within: Literal["task"] | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 200,
    seed: int = 0,
    fdr: float = 0.05,
    smallest: float = 0.1,
) -> xr.Dataset:
    """Pearson correlation over prompts of each expert's activation rate with features of the prompts.

    - `r` with a 95 % interval from drawing prompts again; `lift`: log2 of the rate where a feature of 0 and 1 holds
      over the rate where it does not.
    - `p_value`: the feature dealt to prompts at random (within tasks where asked); `p_max`: how often the largest |r|
      over all experts reaches this one; `q_value` of p_value over everything; `significant`: q ≤ `fdr` and |r| ≥
      `smallest`.
    - `null_95`, by feature: what the largest |r| reaches in one of twenty deals; `limit`, by expert: the same where
      each expert's r is measured by its own spread under the deals, as `p_max` measures it. Within tasks they differ.

    A feature that is the same for all prompts of a task belongs to tasks: dealing it to prompts makes every task with
    many prompts significant. For those take `feature_correlation`, which deals to tasks.

    Args:
        trace: the trace.
        features: index prompt (its id), a numeric column each; by default the task types, as `prompt_features` gives
            them.
        within: "task" takes means of tasks from both and deals within tasks.
        n_permutations: deals for the null.
        n_bootstrap: draws for the interval; 0 for none.
        seed: of deals and draws.
        fdr: share of false ones to accept.
        smallest: |r| below which nothing is called.

    Returns:
        (feature, layer, expert) · r, r_low, r_high, lift, limit, p_value, p_max, q_value, significant; (feature) ·
        null_95, n_prompts · correlation, log2 ratio, probability · r −1 to 1; NaN where either does not vary.

    Raises:
        SelectionError: the features lack a prompt of the trace, or are not numbers, or `within` has another name.
        TraceError: the trace holds counts only.

    References:
        Westfall & Young 1993 (largest statistic over all tests).
    """
    if within not in ("task", None):
        msg = f"Features are taken within tasks or as a whole, not within {within!r}. Correct `within`."
        raise SelectionError(msg)
    require_tokens(trace, for_what="a correlation over prompts")
    n_permutations = draws_of_prompts(trace, n_permutations)
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    table = _checked(prompt_features(trace) if features is None else features, trace)
    rate_PLE = np.concatenate([block.rate_PLE for block in prompt_rates(trace)], axis=1)
    shape = rate_PLE.shape[1:]
    rate_PX = rate_PLE.reshape(len(rate_PLE), -1)
    strata_P = trace.task_of_prompt.astype(np.int64) if within else np.zeros(trace.n_prompts, dtype=np.int64)
    names = ("r", "r_low", "r_high", "lift", "limit", "p_value", "p_max")
    found = {name: np.full((len(table.columns), rate_PX.shape[1]), np.nan) for name in names}
    null_95, n_prompts = np.full(len(table.columns), np.nan), np.zeros(len(table.columns), dtype=np.int64)
    z, n_exceeding = np.full(found["r"].shape, np.nan), np.zeros(found["r"].shape, dtype=np.int64)
    pooled = PooledNull()
    for number, name in enumerate(table.columns):
        value_P = table[name].to_numpy(float)
        rows = np.flatnonzero(np.isfinite(value_P))
        n_prompts[number] = len(rows)
        if len(rows) < 3:
            continue
        one, tested, null_95[number] = _one_feature(
            rate_PX[rows],
            value_P[rows],
            strata_P[rows],
            n_permutations=n_permutations,
            n_bootstrap=n_bootstrap,
            seed=seed + number,
            pooled=pooled,
        )
        z[number], n_exceeding[number] = tested.z, tested.n_exceeding
        for each, values in one.items():
            found[each][number] = values
    if n_permutations:
        found["p_value"] = pooled.p_values(z, n_exceeding=n_exceeding, n_permutations=n_permutations)
    q = q_values(found["p_value"])
    dims = ("feature", "layer", "expert")
    full = (len(table.columns), *shape)
    units = {"lift": "log2 ratio", "p_value": "probability", "p_max": "probability"}
    variables = {
        name: (dims, values.reshape(full), {"unit": units.get(name, "correlation")}) for name, values in found.items()
    }
    variables["q_value"] = (dims, q.reshape(full), {"unit": "false-discovery rate"})
    with np.errstate(invalid="ignore"):
        called = ((q <= fdr) & (np.abs(found["r"]) >= smallest)).reshape(full)
    return xr.Dataset(
        variables
        | {
            "significant": (dims, called, {"unit": f"q at most {fdr} and |r| at least {smallest}"}),
            "null_95": ("feature", null_95, {"unit": "correlation"}),
            "n_prompts": ("feature", n_prompts, {"unit": "prompts"}),
        },
        coords={
            "feature": [str(name) for name in table.columns],
            "layer": list(trace.layers),
            "expert": np.arange(trace.n_experts),
        },
        attrs={"within": within or "all", "n_permutations": n_permutations, "seed": seed, "fdr": fdr},
    )


def _one_feature(
    rate_PX: np.ndarray,
    value_P: np.ndarray,
    strata_P: np.ndarray,
    *,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
    pooled: PooledNull,
) -> tuple[dict[str, np.ndarray], Tested, float]:
    """r, its interval, lift and p_max of every expert; the test; and what the largest |r| reaches by chance."""
    known_PX = np.isfinite(rate_PX)
    # A layer that did not route a prompt says nothing about it: it is put at the mean.
    mean_X = np.where(known_PX, rate_PX, 0).sum(axis=0) / np.maximum(known_PX.sum(axis=0), 1)
    filled_PX = np.where(known_PX, rate_PX, mean_X)
    tested = deal_labels(filled_PX, value_P, strata_P, n_permutations=n_permutations, seed=seed, pooled=pooled)
    centered_PX, centered_P = filled_PX.copy(), value_P.astype(float).copy()
    for stratum in np.unique(strata_P):
        mine = strata_P == stratum
        centered_PX[mine] -= centered_PX[mine].mean(axis=0)
        centered_P[mine] -= centered_P[mine].mean()
    lengths_X = np.sqrt((centered_PX**2).sum(axis=0) * (centered_P**2).sum())
    varies_X = np.isfinite(tested.z)
    two_sided = set(np.unique(value_P)) <= {0.0, 1.0}
    nothing = np.full(rate_PX.shape[1], np.nan)
    found = {
        "r": np.where(varies_X, tested.total / np.where(varies_X, lengths_X, 1.0), np.nan),
        "lift": _lift(rate_PX, value_P) if two_sided else nothing,
    }
    null_95 = float("nan")
    if len(tested.largest):
        reached = len(tested.largest) - np.searchsorted(np.sort(tested.largest), np.abs(tested.z) - 1e-9, side="left")
        found["p_max"] = np.where(varies_X, p_value(reached, n_permutations=len(tested.largest)), np.nan)
        # Without groups all experts have one and the same standard deviation of r, 1 / √(n − 1).
        deviation_X = np.where(varies_X, tested.deviation / np.where(varies_X, lengths_X, 1.0), np.nan)
        largest = float(np.quantile(tested.largest, 0.95))
        found["limit"], null_95 = largest * deviation_X, largest * float(np.nanmean(deviation_X))
    if n_bootstrap and varies_X.any():
        rng = np.random.default_rng(seed)
        found["r_low"], found["r_high"] = _interval(centered_PX, centered_P, varies_X, n_bootstrap, rng)
    return found, tested, null_95


def _interval(
    centered_PX: np.ndarray, centered_P: np.ndarray, varies_X: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of r, prompts drawn again; means of tasks stay those of all prompts."""
    n = len(centered_P)
    weight_RP = rng.multinomial(n, np.full(n, 1 / n), n_bootstrap) / n
    mean_RX, mean_R = weight_RP @ centered_PX, weight_RP @ centered_P
    both_RX = weight_RP @ (centered_PX * centered_P[:, None]) - mean_RX * mean_R[:, None]
    own_RX = weight_RP @ centered_PX**2 - mean_RX**2
    own_R = weight_RP @ centered_P**2 - mean_R**2
    below = np.sqrt(np.maximum(own_RX * own_R[:, None], 0))
    drawn = np.where((below > 1e-15) & varies_X, both_RX / np.where(below > 1e-15, below, 1), np.nan)
    return interval_95(drawn)


def _lift(rate_PX: np.ndarray, value_P: np.ndarray) -> np.ndarray:
    means = []
    for side in (1.0, 0.0):
        mine = rate_PX[value_P == side]
        known = np.isfinite(mine)
        total = np.where(known, mine, 0).sum(axis=0)
        means.append(np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log2(means[0] / means[1])
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _checked(features: pd.DataFrame, trace: RoutingTrace) -> pd.DataFrame:
    ids = trace.prompts["prompt"].to_numpy(dtype=str)
    given = features.copy()
    given.index = given.index.astype(str)
    if lacking := [each for each in ids if each not in set(given.index)]:
        msg = f"The features have no row for {len(lacking)} prompts, {lacking[:3]} among them. Give every prompt a row."
        raise SelectionError(msg)
    if wrong := [str(name) for name in given.columns if not pd.api.types.is_numeric_dtype(given[name])]:
        msg = f"The features {wrong} are not numbers. Turn them into columns of 0 and 1 with `prompt_features`."
        raise SelectionError(msg)
    return given.loc[ids].astype(float)
