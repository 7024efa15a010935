"""How routing came to be: the same tokens through checkpoints of one training.

Legend: T token, L layer, R stored rank, K selected rank, E expert.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.counts import assignment_counts
from analysis.information import task_information
from analysis.load import load_balance
from analysis.measure import measure_of
from analysis.pairing import BLOCK_TOKENS, paired_experts, paired_rows
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["over_training", "saturation"]

_BALANCE = ("max_over_mean", "cv", "entropy_normalized", "n_dead")
_INFORMATION = ("information_nats", "null_mean", "null_95", "excess_nats", "p_value")


def saturation(early: RoutingTrace, late: RoutingTrace) -> pd.DataFrame:
    """Share of a token's experts that an earlier checkpoint already chose.

    Tokens of the prompts are compared, not what was generated, for checkpoints write different answers; the order of
    ranks is ignored. `chance` is what two checkpoints of the same loads would agree on if each token's experts were
    drawn anew: Σ_e r_e r'_e / k, r the activation rates. With even loads that is k / E; uneven loads agree more
    without any memory of a token.

    Where every expert is always selected, it is the weight that both gave to the same experts, Σ_e min(w_e, w'_e), and
    chance is the same with the weights of another token in place of its own.

    Args:
        early: a checkpoint's trace.
        late: a later one's, of the same prompts.

    Returns:
        (layer) · saturation, chance, n_tokens · share of experts · 0 to 1; NaN where the layer routed no such token.

    Raises:
        TraceError: the traces hold different prompts, tokens, layers or top-k.

    References:
        Muennighoff et al. 2024, "OLMoE" (router saturation).
    """
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import count_common, frozen

    pairs = paired_rows(early, late)
    top_k_L = np.array([facts.top_k for facts in early.layer_facts], dtype=np.int64)
    if measure_of(early) == measure_of(late) == "routed weight":
        return _weight_overlap(early, late, pairs.rows, pairs.other_rows)
    common_L, routed_L = np.zeros(early.n_layers, dtype=np.int64), np.zeros(early.n_layers, dtype=np.int64)
    for _, one, other in paired_experts(early, late, pairs):
        common, routed = count_common(frozen(one), frozen(other), top_k_L, early.n_experts)
        common_L += common
        routed_L += routed
    rates_LE = []
    for trace in (early, late):
        counts = assignment_counts(trace, phase="prompt").to_numpy()
        rates_LE.append(counts * (top_k_L / np.maximum(counts.sum(axis=1), 1))[:, None])
    some_L = routed_L > 0
    slots_L = np.maximum(routed_L * top_k_L, 1)
    frame = pd.DataFrame(
        {
            "saturation": np.where(some_L, common_L / slots_L, np.nan),
            "chance": np.where(some_L, (rates_LE[0] * rates_LE[1]).sum(axis=1) / top_k_L, np.nan),
            "n_tokens": routed_L,
        },
        index=pd.Index(list(early.layers), name="layer"),
    )
    frame.attrs["unit"] = {"saturation": "share of experts", "chance": "share of experts", "n_tokens": "tokens"}
    return frame


def _weight_overlap(early: RoutingTrace, late: RoutingTrace, rows: np.ndarray, other_rows: np.ndarray) -> pd.DataFrame:
    """`saturation` where every expert is always selected."""
    overlap_L, chance_L, routed_L = np.zeros(early.n_layers), np.zeros(early.n_layers), np.zeros(early.n_layers, int)
    for first in range(0, len(rows), BLOCK_TOKENS):
        part = slice(first, first + BLOCK_TOKENS)
        (mine, there), (theirs, also) = (
            _weights_by_expert(trace, taken[part]) for trace, taken in ((early, rows), (late, other_rows))
        )
        for layer in range(early.n_layers):
            both = there[:, layer] & also[:, layer]
            one, other = mine[both, layer], theirs[both, layer]
            overlap_L[layer] += np.minimum(one, other).sum()
            chance_L[layer] += np.minimum(one, np.roll(other, len(other) // 2, axis=0)).sum()
            routed_L[layer] += int(both.sum())
    some_L = routed_L > 0
    frame = pd.DataFrame(
        {
            "saturation": np.where(some_L, overlap_L / np.maximum(routed_L, 1), np.nan),
            "chance": np.where(some_L, chance_L / np.maximum(routed_L, 1), np.nan),
            "n_tokens": routed_L,
        },
        index=pd.Index(list(early.layers), name="layer"),
    )
    frame.attrs["measure"] = "routed weight"
    frame.attrs["unit"] = {"saturation": "share of weight", "chance": "share of weight", "n_tokens": "tokens"}
    return frame


def _weights_by_expert(trace: RoutingTrace, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, L, E) weight of each expert, and (T, L) whether the layer routed the token."""
    ids = trace.storage.require_rows("experts").take(rows)[..., : trace.top_k].astype(np.int64)
    weights = np.nan_to_num(trace.storage.require_rows("weights").take(rows).astype(float))
    there = ids != trace.absent
    found = np.zeros((*ids.shape[:2], trace.n_experts + 1))
    np.put_along_axis(found, np.where(there, ids, trace.n_experts), np.where(there, weights, 0.0), axis=-1)
    return found[..., :-1], there[..., 0]


def over_training(
    traces: Mapping[int, RoutingTrace] | Mapping[str, RoutingTrace], *, n_permutations: int = 200, seed: int = 0
) -> pd.DataFrame:
    """What became of each layer over training: how settled, how even, how telling its routing was at each step.

    Args:
        traces: a trace for each step of training, of the same prompts; steps may be written as text.
        n_permutations: for the null of the task information; 0 for none.
        seed: of the permutations.

    Returns:
        (step, layer) · saturation and its chance against the last step, max_over_mean, cv, entropy_normalized,
        n_dead of `load_balance`, information_nats, null_mean, null_95, excess_nats, p_value of `task_information` ·
        units as there; steps ascending.

    Raises:
        TraceError: there is no trace, one holds counts only, or they hold different prompts, tokens or layers.
    """
    if not traces:
        msg = "There are no traces of training steps. Give at least one."
        raise TraceError(msg)
    steps = dict(sorted((int(step), trace) for step, trace in traces.items()))
    last = steps[max(steps)]
    parts = {}
    for step, trace in steps.items():
        balance = load_balance(trace, n_bootstrap=0)[list(_BALANCE)]
        information = task_information(trace, n_permutations=n_permutations, seed=seed)[list(_INFORMATION)]
        agreed = saturation(trace, last)[["saturation", "chance"]].rename(columns={"chance": "saturation_chance"})
        parts[step] = pd.concat([agreed, balance, information], axis=1)
    frame = pd.concat(parts, names=["step", "layer"])
    frame.attrs["unit"] = {
        "saturation": "share of experts",
        "saturation_chance": "share of experts",
        "max_over_mean": "ratio",
        "cv": "ratio",
        "entropy_normalized": "share of ln(experts)",
        "n_dead": "experts",
        "p_value": "probability",
    } | dict.fromkeys(("information_nats", "null_mean", "null_95", "excess_nats"), "nats")
    return frame
