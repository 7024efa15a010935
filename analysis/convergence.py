"""Whether a run was long enough, and whether its load drifted.

Legend: P prompt, N point of the run, L layer, E expert, R resampling.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.balance import max_over_mean
from analysis.nulls import p_value
from analysis.passes import batches_of
from analysis.rates import draws_of_prompts
from analysis.scan import prompt_blocks
from routing.trace import RoutingTrace

__all__ = ["load_convergence"]


def load_convergence(
    trace: RoutingTrace, *, n_points: int = 20, n_permutations: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How the load of each layer comes to be as prompts are recorded, against prompts in random order.

    - `distance`: total variation between the load of the first n prompts and that of the whole run, ½ Σ |p_n − p|: the
      share of assignments that would have to move.
    - `shuffled_mean`, `shuffled_95`: the same with prompts in random order: what a run of n prompts is off by chance.
    - `p_value`: how often the mean distance of a random order reaches that of the recorded one. Small where the load
      drifts: prompts of one task stand together, or the model changed.

    Args:
        trace: the trace.
        n_points: how many numbers of prompts to look at, evenly spaced.
        n_permutations: random orders.
        seed: of the orders.

    Returns:
        (layer, n_prompts) · max_over_mean, distance, shuffled_mean, shuffled_95, p_value · ratio, share of assignments,
        probability · distances 0 to 1; NaN where nothing was routed by then, or there is nothing to compare.

    Raises:
        TraceError: the trace holds counts only.
    """
    n_permutations = draws_of_prompts(trace, n_permutations)
    place_P = batches_of(trace, batch_size=1)
    lined_up = np.argsort(np.where(place_P < 0, trace.n_prompts, place_P), kind="stable")[: int((place_P >= 0).sum())]
    points = np.unique(np.linspace(0, len(lined_up), min(n_points, len(lined_up)) + 1).round().astype(np.int64))[1:]
    starts = np.concatenate([[0], points[:-1]]).astype(np.int64)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(lined_up) for _ in range(n_permutations)] if len(lined_up) > 1 else []
    parts = []
    for layers, table in prompt_blocks(trace) if len(lined_up) else ():
        exists_LE = trace.expert_exists.to_numpy()[layers]

        def running(line: np.ndarray, counts_PLE: np.ndarray = table.assignments_GLE) -> np.ndarray:
            return np.add.reduceat(counts_PLE[line], starts, axis=0).cumsum(axis=0).astype(float)

        observed_NLE = running(lined_up)
        distance_NL = _distances(observed_NLE)
        shuffled_RNL = np.array([_distances(running(line)) for line in orders])
        metrics_NL = max_over_mean(observed_NLE, exists=exists_LE)
        for number in range(distance_NL.shape[1]):
            null_RN = shuffled_RNL[:, :, number] if len(orders) else np.zeros((0, len(points)))
            known = np.isfinite(distance_NL[:, number])
            p = np.nan
            if len(null_RN) and known.sum() > 1:
                null = np.nanmean(null_RN, axis=1)
                reached = int((null >= distance_NL[known, number].mean() - 1e-12).sum())
                p = float(p_value(reached, n_permutations=len(null)))
            some_N = np.isfinite(null_RN).any(axis=0) if len(null_RN) else np.zeros(len(points), bool)
            mean, high = np.full(len(points), np.nan), np.full(len(points), np.nan)
            if some_N.any():
                mean[some_N] = np.nanmean(null_RN[:, some_N], axis=0)
                high[some_N] = np.nanquantile(null_RN[:, some_N], 0.95, axis=0)
            parts.append(
                pd.DataFrame(
                    {
                        "layer": trace.layers[layers.start + number],
                        "n_prompts": points,
                        "max_over_mean": metrics_NL[:, number],
                        "distance": distance_NL[:, number],
                        "shuffled_mean": mean,
                        "shuffled_95": high,
                        "p_value": p,
                    }
                )
            )
    columns = ["layer", "n_prompts", "max_over_mean", "distance", "shuffled_mean", "shuffled_95", "p_value"]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    frame = frame.set_index(["layer", "n_prompts"])
    frame.attrs["unit"] = {
        "max_over_mean": "ratio",
        "distance": "share of assignments",
        "shuffled_mean": "share of assignments",
        "shuffled_95": "share of assignments",
        "p_value": "probability",
    }
    return frame


def _distances(running_NLE: np.ndarray) -> np.ndarray:
    """(N, L) total variation between the load up to each point and the last."""
    total_NL = running_NLE.sum(axis=2, keepdims=True)
    share_NLE = running_NLE / np.where(total_NL > 0, total_NL, np.nan)
    found: np.ndarray = np.abs(share_NLE - share_NLE[-1]).sum(axis=2) / 2
    return found
