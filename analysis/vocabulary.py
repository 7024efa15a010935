"""How much of the routing is the token itself: the same id in different texts.

Legend: P prompt, B block of prompts, V token of the vocabulary, L layer, E expert.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from analysis.jackknife import blocks_of_prompts, jackknife_spread
from analysis.scan import require_tokens
from routing.trace import RoutingTrace

__all__ = ["context_independence"]

LARGEST_TABLE = 1 << 22
"""Cells of a layer's table of counts; the most frequent ids that fit are looked at."""


def context_independence(trace: RoutingTrace, *, n_blocks: int = 10, seed: int = 0) -> xr.Dataset:
    """How often one and the same token of the vocabulary goes to the same experts in different texts.

    Prompts are dealt to blocks, and only tokens of different blocks are paired, so that nothing is compared with its
    own text and rare ids need no correction. Ids count by their number of tokens.

    - `agreement`: of two occurrences of an id in different texts, the share of experts chosen in both; `chance`: the
      same for two tokens of any ids, Σ_e r_e² / k, r the rates.
    - `share`: (agreement − chance) / (1 − chance): 0 where the id says nothing, 1 where it decides alone; 95 % interval
      from blocks left out.
    - `specialization` of an expert: where one occurrence chooses it, how often another one, in another text, does too;
      beside its `rate` over these tokens. 1 for an expert of certain words, whatever the text.
    - `covered`: share of the tokens whose id occurs in several blocks.

    Args:
        trace: the trace.
        n_blocks: blocks of prompts.
        seed: of the blocks.

    Returns:
        (layer) · agreement, chance, share, share_low, share_high, covered; (layer, expert) · specialization, rate ·
        shares of experts, of what chance leaves, and of tokens · 0 to 1, share at most 1; NaN where no id occurs in two
        texts or ids are not known.

    Raises:
        TraceError: the trace holds counts only.

    References:
        Xue et al. 2024, "OpenMoE" (context-independent specialization); Muennighoff et al. 2024, "OLMoE" (vocabulary
        specialization); pairing different texts is ours.
    """
    require_tokens(trace, for_what="a look at token ids")
    block_P, n_blocks = blocks_of_prompts(trace, n_blocks=n_blocks, seed=seed)
    ids_V = _frequent(trace, most=max(1, LARGEST_TABLE // max(1, n_blocks * (trace.n_experts + 1))))
    names = ("agreement", "chance", "share", "share_low", "share_high", "covered")
    found = {name: np.full(trace.n_layers, np.nan) for name in names}
    experts = {name: np.full((trace.n_layers, trace.n_experts), np.nan) for name in ("specialization", "rate")}
    for layer, facts in enumerate(trace.layer_facts):
        if not len(ids_V):
            break
        counts_BVE, n_routed = _counted(trace, layer, block_P=block_P, n_blocks=n_blocks, ids_V=ids_V)
        counts_BVE = counts_BVE[:, :, : facts.n_experts]
        if not counts_BVE.any():
            continue
        whole = _agreement(counts_BVE, top_k=facts.top_k)
        if not np.isfinite(whole["agreement"]):
            continue
        shares = [
            _agreement(np.delete(counts_BVE, block, axis=0), top_k=facts.top_k)["share"] for block in range(n_blocks)
        ]
        spread = float(jackknife_spread(np.array(shares))) if n_blocks > 2 else np.nan
        for name in ("agreement", "chance", "share"):
            found[name][layer] = whole[name]
        found["share_low"][layer] = whole["share"] - 1.96 * spread
        found["share_high"][layer] = min(1.0, whole["share"] + 1.96 * spread)
        found["covered"][layer] = whole["n_tokens"] / n_routed
        for name in experts:
            experts[name][layer, : facts.n_experts] = whole[name]
    units = {"agreement": "share of experts", "chance": "share of experts", "covered": "share of tokens"}
    variables = {
        name: ("layer", values, {"unit": units.get(name, "share of what chance leaves")})
        for name, values in found.items()
    }
    both = {name: (("layer", "expert"), values, {"unit": "share of tokens"}) for name, values in experts.items()}
    coords = {"layer": list(trace.layers), "expert": np.arange(trace.n_experts)}
    return xr.Dataset(variables | both, coords=coords, attrs={"n_blocks": n_blocks, "n_ids": len(ids_V), "seed": seed})


def _frequent(trace: RoutingTrace, *, most: int) -> np.ndarray:
    """The most frequent ids, ascending."""
    n_ids = 1 + max((int(chunk.token_id.max(initial=-1)) for chunk in trace.chunks(fields=())), default=-1)
    seen_V = np.zeros(n_ids, dtype=np.int64)
    for chunk in trace.chunks(fields=()):
        seen_V += np.bincount(chunk.token_id[chunk.token_id >= 0], minlength=n_ids)
    # An id that occurs once has no other occurrence.
    ids = np.argsort(-seen_V, kind="stable")[:most]
    return np.sort(ids[seen_V[ids] > 1])


def _counted(
    trace: RoutingTrace, layer: int, *, block_P: np.ndarray, n_blocks: int, ids_V: np.ndarray
) -> tuple[np.ndarray, int]:
    """(B, V, E) assignments of each id in each block, and all tokens of the layer."""
    n_experts, top_k = trace.n_experts, trace.layer_facts[layer].top_k
    counts = np.zeros((n_blocks, len(ids_V), n_experts), np.int32)
    flat = counts.reshape(-1)
    n_routed = 0
    for chunk in trace.chunks(fields=("experts",)):
        assert chunk.experts is not None
        selected = chunk.experts[:, layer, :top_k].astype(np.int64)
        routed = selected[:, 0] < n_experts
        n_routed += int(routed.sum())
        place = np.minimum(np.searchsorted(ids_V, chunk.token_id), len(ids_V) - 1)
        here = routed & (ids_V[place] == chunk.token_id)
        cell = (block_P[chunk.prompt[here]].astype(np.int64) * len(ids_V) + place[here]) * n_experts
        np.add.at(flat, (cell[:, None] + selected[here]).ravel(), 1)
    return counts, n_routed


def _agreement(counts_BVE: np.ndarray, *, top_k: int) -> dict[str, np.ndarray | float]:
    """Agreement over pairs of different blocks; ids weigh by their tokens."""
    counts_BVE = counts_BVE.astype(float)
    total_VE = counts_BVE.sum(axis=0)
    n_BV = counts_BVE.sum(axis=2) / top_k
    n_V = n_BV.sum(axis=0)
    pairs_V = n_V**2 - (n_BV**2).sum(axis=0)
    paired = pairs_V > 0.5
    if not paired.any():
        return {"agreement": np.nan, "chance": np.nan, "share": np.nan, "n_tokens": 0.0}
    together_VE = (total_VE**2 - (counts_BVE**2).sum(axis=0))[paired]
    weight_V = n_V[paired] / pairs_V[paired]
    n_tokens = n_V[paired].sum()
    both_E = weight_V @ together_VE / n_tokens
    agreement = float(both_E.sum() / top_k)
    rate_E = total_VE[paired].sum(axis=0) / n_tokens
    chance = float((rate_E**2).sum() / top_k)
    # One of the pair chooses the expert: weighted as the pairs are.
    first_E = weight_V @ (total_VE * n_V[:, None] - (counts_BVE * n_BV[:, :, None]).sum(axis=0))[paired] / n_tokens
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "agreement": agreement,
            "chance": chance,
            "share": (agreement - chance) / (1 - chance) if chance < 1 else np.nan,
            "specialization": np.where(first_E > 0, both_E / first_E, np.nan),
            "rate": rate_E,
            "n_tokens": float(n_tokens),
        }
