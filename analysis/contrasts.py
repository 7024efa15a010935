"""Two sides of prompts, expert by expert: a difference of rates, its scatter and its test, one row an expert.

Legend: P prompt, L layer, E expert, X expert of any layer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.nulls import PooledNull, q_values
from analysis.rates import prompt_rates
from analysis.scan import Phase
from analysis.stratified import Tested
from routing.trace import RoutingTrace

__all__ = ["Test", "centered", "contrast_table", "mean_differences", "ranked"]

_Z_95 = 1.959963984540054
_UNITS = {
    "rate_one": "share of tokens",
    "rate_other": "share of tokens",
    "difference": "share of tokens",
    "difference_low": "share of tokens",
    "difference_high": "share of tokens",
    "lift": "log2 ratio",
    "effect": "standard deviations of prompts",
    "z": "standard deviations of the null",
    "p_value": "probability",
    "q_value": "false-discovery rate",
    "significant": "true or false",
    "n_one": "prompts",
    "n_other": "prompts",
}

Test = Callable[[np.ndarray, np.ndarray], tuple[Tested, dict[str, np.ndarray]]]
"""From the rates of some prompts and the rows of these prompts: the test of each expert, and what is said of it."""


def contrast_table(
    trace: RoutingTrace,
    test: Test,
    *,
    known_P: np.ndarray,
    phase: Phase | None,
    pooled: PooledNull,
    n_permutations: int,
    beside: dict[int, np.ndarray] | None = None,
) -> pd.DataFrame:
    """One row an expert: what `test` finds of the prompts that the layer routed."""
    parts, exceeding = [], []
    for block in prompt_rates(trace, phase=phase):
        for number in range(block.rate_PLE.shape[1]):
            facts = trace.layer_facts[block.layers.start + number]
            rate_PE = block.rate_PLE[:, number, : facts.n_experts]
            if beside is not None:
                later_PE = beside[block.layers.start][:, number, : facts.n_experts]
                rate_PE = np.concatenate([rate_PE, later_PE], axis=1)
            rows = np.flatnonzero(known_P & np.isfinite(rate_PE).all(axis=1))
            if not len(rows):
                continue
            tested, columns = test(rate_PE[rows], rows)
            if not np.isfinite(columns["difference"]).any():
                continue
            part = pd.DataFrame({"layer": facts.label, "expert": np.arange(facts.n_experts), **columns, "z": tested.z})
            parts.append(part)
            exceeding.append(tested.n_exceeding)
    if not parts:
        return pd.DataFrame(columns=["layer", "expert", "difference", "error", "spread", "rate_one", "z", "p_value"])
    frame = pd.concat(parts, ignore_index=True)
    frame["p_value"] = (
        pooled.p_values(frame["z"].to_numpy(), n_exceeding=np.concatenate(exceeding), n_permutations=n_permutations)
        if n_permutations
        else np.nan
    )
    return frame


def ranked(frame: pd.DataFrame, *, fdr: float, smallest: float, attrs: dict[str, object]) -> pd.DataFrame:
    """The rows of `contrast_table` with intervals and what is called, the significant ones first, then by size."""
    columns = ["layer", "expert", *(["r"] if "r" in frame else []), *_UNITS]
    if frame.empty:
        frame = pd.DataFrame(columns=columns)
    else:
        frame["rate_other"] = frame["rate_one"] - frame["difference"]
        frame["difference_low"] = frame["difference"] - _Z_95 * frame["error"]
        frame["difference_high"] = frame["difference"] + _Z_95 * frame["error"]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.log2(frame["rate_one"].to_numpy(float) / frame["rate_other"].to_numpy(float))
            effect = frame["difference"].to_numpy(float) / frame["spread"].to_numpy(float)
        frame["lift"] = np.where(np.isfinite(ratio), ratio, np.nan)
        frame["effect"] = np.where(np.isfinite(effect), effect, np.nan)
        frame["q_value"] = q_values(frame["p_value"].to_numpy(float))
        frame["significant"] = (frame["q_value"] <= fdr) & (frame["effect"].abs() >= smallest)
        size = frame["difference"].abs().fillna(-1.0)
        order = np.lexsort((-size.to_numpy(), ~frame["significant"].to_numpy(bool)))
        frame = frame.iloc[order][columns].reset_index(drop=True)
    frame.attrs.update(attrs | {"fdr": fdr, "smallest": smallest, "unit": dict(_UNITS)})
    return frame


def mean_differences(values_PX: np.ndarray, is_one_P: np.ndarray, strata_P: np.ndarray) -> dict[str, np.ndarray]:
    """Difference of means within groups, weighed by n₁ n₂ / (n₁ + n₂), with its error and the spread of prompts."""
    n_X = values_PX.shape[1]
    total, weight, variance, one_mean = np.zeros(n_X), 0.0, np.zeros(n_X), np.zeros(n_X)
    scatter, freedom, n_one, n_other = np.zeros(n_X), 0, 0, 0
    for stratum in np.unique(strata_P):
        mine = values_PX[(strata_P == stratum) & is_one_P]
        theirs = values_PX[(strata_P == stratum) & ~is_one_P]
        if not len(mine) or not len(theirs):
            continue
        each = len(mine) * len(theirs) / (len(mine) + len(theirs))
        total += each * (mine.mean(axis=0) - theirs.mean(axis=0))
        one_mean += each * mine.mean(axis=0)
        for side in (mine, theirs):
            squares = ((side - side.mean(axis=0)) ** 2).sum(axis=0)
            scatter += squares
            freedom += len(side) - 1
            if len(side) > 1:
                variance += each**2 * squares / (len(side) - 1) / len(side)
        weight += each
        n_one += len(mine)
        n_other += len(theirs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "difference": total / weight if weight else np.full(n_X, np.nan),
            "rate_one": one_mean / weight if weight else np.full(n_X, np.nan),
            "error": np.sqrt(variance) / weight if freedom > 1 else np.full(n_X, np.nan),
            "spread": np.sqrt(scatter / freedom) if freedom else np.full(n_X, np.nan),
            "n_one": np.full(n_X, n_one),
            "n_other": np.full(n_X, n_other),
        }


def centered(values_PX: np.ndarray, strata_P: np.ndarray) -> np.ndarray:
    """Values of prompts less their means in their groups."""
    found = values_PX.astype(float).copy()
    for stratum in np.unique(strata_P):
        found[strata_P == stratum] -= found[strata_P == stratum].mean(axis=0)
    return found
