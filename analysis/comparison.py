"""Two traces of the same tokens: what changed, by rank, by layer and by prompt.

Legend: T token, P prompt, L layer, K selected rank, R resampling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.intervals import interval_95
from analysis.other_texts import partners
from analysis.pairing import Pairs, paired_experts, paired_rows
from analysis.rates import draws_of_prompts
from routing.trace import RoutingTrace

__all__ = ["changed_prompts", "churn", "saturation_by_rank"]

_NOBODY, _NEITHER = -1, -2


def saturation_by_rank(
    early: RoutingTrace, late: RoutingTrace, *, n_bootstrap: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How much of the later routing was there earlier, rank by rank.

    - `kept`: share of tokens whose expert at this rank of the later trace was already among the selected of the
      earlier one; 95 % interval from drawing prompts again. `chance_kept`: the same with the earlier trace read in
      another text.
    - `same_rank`: at the very same rank; `chance_same_rank` likewise.

    Args:
        early: a checkpoint's trace.
        late: a later one's, of the same prompts.
        n_bootstrap: draws for the interval; 0 for none.
        seed: of draws and texts.

    Returns:
        (layer, rank) · kept, kept_low, kept_high, chance_kept, same_rank, chance_same_rank, n_tokens · share of tokens
        · 0 to 1; NaN where the layer routed no such token.

    Raises:
        TraceError: the traces hold different prompts, tokens, layers or top-k.

    References:
        Muennighoff et al. 2024, "OLMoE" (router saturation).
    """
    n_bootstrap = draws_of_prompts(early, n_bootstrap)
    pairs = paired_rows(early, late)
    shape = (early.n_prompts, early.n_layers, early.top_k)
    kept_PLK, same_PLK = np.zeros((2, *shape), np.int64)
    by_chance = np.zeros((2, *shape[1:]), np.int64)
    n_PL = np.zeros(shape[:2], np.int64)
    for block in _blocks(early, late, pairs, seed=seed):
        np.add.at(n_PL, block.prompt_T, block.routed_TL)
        for earlier, sums in ((block.one_TLK, (kept_PLK, same_PLK)), (block.elsewhere_TLK, None)):
            found = block.other_TLK[:, :, :, None] == earlier[:, :, None, :]
            kept, same = found.any(axis=3), block.other_TLK == earlier
            if sums is None:
                by_chance += np.stack([kept.sum(axis=0), same.sum(axis=0)])
            else:
                np.add.at(sums[0], block.prompt_T, kept)
                np.add.at(sums[1], block.prompt_T, same)
    weights = np.random.default_rng(seed).multinomial(
        early.n_prompts, np.full(early.n_prompts, 1 / max(1, early.n_prompts)), n_bootstrap
    )
    n_L = n_PL.sum(axis=0).astype(float)
    n_L[n_L == 0] = np.nan
    low, high = np.full((2, *shape[1:]), np.nan)
    if n_bootstrap and early.n_prompts > 1:
        drawn = _divided(np.tensordot(weights, kept_PLK, axes=1), (weights @ n_PL)[:, :, None])
        low, high = interval_95(drawn)
    columns = {
        "kept": kept_PLK.sum(axis=0) / n_L[:, None],
        "kept_low": low,
        "kept_high": high,
        "chance_kept": by_chance[0] / n_L[:, None],
        "same_rank": same_PLK.sum(axis=0) / n_L[:, None],
        "chance_same_rank": by_chance[1] / n_L[:, None],
        "n_tokens": np.broadcast_to(n_PL.sum(axis=0)[:, None], shape[1:]),
    }
    index = pd.MultiIndex.from_product([early.layers, range(early.top_k)], names=["layer", "rank"])
    frame = pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)
    there = np.concatenate([np.arange(early.top_k) < facts.top_k for facts in early.layer_facts] or [np.zeros(0, bool)])
    frame = frame[there]
    frame.attrs["unit"] = dict.fromkeys(columns, "share of tokens") | {"n_tokens": "tokens"}
    return frame


def churn(before: RoutingTrace, after: RoutingTrace, *, n_bootstrap: int = 200, seed: int = 0) -> pd.DataFrame:
    """How much the routing of the same tokens changed, layer by layer.

    - `churn`: mean over tokens of 1 − |S ∩ S'| / |S ∪ S'|; 95 % interval from drawing prompts again. `chance`: the same
      against another text: what two unrelated routings of these loads would show.
    - `any_changed`, `first_changed`: share of tokens with another set, or another first expert.
    - `margin_changed`, `margin_kept`: mean margin before (least selected score − first runner-up's) of tokens whose set
      changed, and of others: small changes of a model flip close choices first. NaN without runners-up.

    Args:
        before: a trace.
        after: another one of the same prompts: another checkpoint, precision or engine.
        n_bootstrap: draws for the interval; 0 for none.
        seed: of draws and texts.

    Returns:
        (layer) · churn, churn_low, churn_high, chance, any_changed, first_changed, margin_changed, margin_kept,
        n_tokens · shares, margins in selection score · 0 to 1; NaN where the layer routed no such token.

    Raises:
        TraceError: the traces hold different prompts, tokens, layers or top-k.
    """
    n_bootstrap = draws_of_prompts(before, n_bootstrap)
    pairs = paired_rows(before, after)
    shape = (before.n_prompts, before.n_layers)
    sums_PL = np.zeros(shape)
    n_PL = np.zeros(shape, np.int64)
    chance_L, changed_L, first_L = np.zeros((3, before.n_layers))
    margins = np.zeros((2, before.n_layers)), np.zeros((2, before.n_layers), np.int64)
    top_k_L = np.array([facts.top_k for facts in before.layer_facts])
    for block in _blocks(before, after, pairs, seed=seed):
        change_TL = _distance(block.one_TLK, block.other_TLK, top_k_L) * block.routed_TL
        np.add.at(n_PL, block.prompt_T, block.routed_TL)
        np.add.at(sums_PL, block.prompt_T, change_TL)
        chance_L += (_distance(block.elsewhere_TLK, block.other_TLK, top_k_L) * block.routed_TL).sum(axis=0)
        changed_TL = (change_TL > 0) & block.routed_TL
        changed_L += changed_TL.sum(axis=0)
        first_L += ((block.one_TLK[:, :, 0] != block.other_TLK[:, :, 0]) & block.routed_TL).sum(axis=0)
        margin_TL = _margins(before, pairs.rows[block.part])
        for number, of in enumerate((changed_TL, block.routed_TL & ~changed_TL)):
            known = of & np.isfinite(margin_TL)
            margins[0][number] += np.where(known, margin_TL, 0.0).sum(axis=0)
            margins[1][number] += known.sum(axis=0)
    n_L = n_PL.sum(axis=0).astype(float)
    n_L[n_L == 0] = np.nan
    low, high = np.full((2, before.n_layers), np.nan)
    if n_bootstrap and before.n_prompts > 1:
        weights = np.random.default_rng(seed).multinomial(
            before.n_prompts, np.full(before.n_prompts, 1 / before.n_prompts), n_bootstrap
        )
        drawn = _divided(weights @ sums_PL, weights @ n_PL)
        low, high = interval_95(drawn)
    mean_margins = _divided(margins[0], margins[1])
    columns = {
        "churn": sums_PL.sum(axis=0) / n_L,
        "churn_low": low,
        "churn_high": high,
        "chance": chance_L / n_L,
        "any_changed": changed_L / n_L,
        "first_changed": first_L / n_L,
        "margin_changed": mean_margins[0],
        "margin_kept": mean_margins[1],
        "n_tokens": n_PL.sum(axis=0),
    }
    frame = pd.DataFrame(columns, index=pd.Index(list(before.layers), name="layer"))
    frame.attrs["unit"] = dict.fromkeys(columns, "share") | {
        "any_changed": "share of tokens",
        "first_changed": "share of tokens",
        "margin_changed": "selection score",
        "margin_kept": "selection score",
        "n_tokens": "tokens",
    }
    return frame


def changed_prompts(before: RoutingTrace, after: RoutingTrace) -> pd.DataFrame:
    """How much the routing of each prompt changed, the most changed first, beside what became of its answer.

    `churn` as in `analysis.churn`, over the prompt's tokens and all layers; `task_mean` is that of its task's prompts,
    and `z` the distance to it in standard deviations of these prompts.

    Args:
        before: a trace.
        after: another one of the same prompts.

    Returns:
        (prompt) · task, n_tokens, churn, task_mean, z, score_before, score_after, prediction_before, prediction_after ·
        churn in share, scores 0 to 1 · NaN where no token was routed, or a score is not known.

    Raises:
        TraceError: the traces hold different prompts, tokens, layers or top-k.
    """
    pairs = paired_rows(before, after)
    top_k_L = np.array([facts.top_k for facts in before.layer_facts])
    sums_P, n_P = np.zeros(before.n_prompts), np.zeros(before.n_prompts)
    for block in _blocks(before, after, pairs, seed=0):
        change_TL = _distance(block.one_TLK, block.other_TLK, top_k_L) * block.routed_TL
        sums_P += np.bincount(block.prompt_T, weights=change_TL.sum(axis=1), minlength=before.n_prompts)
        n_P += np.bincount(block.prompt_T, weights=block.routed_TL.sum(axis=1), minlength=before.n_prompts)
    mine = before.prompts
    theirs = after.prompts.set_index("prompt").loc[mine["prompt"]]
    frame = pd.DataFrame(
        {
            "task": mine["task"].to_numpy(),
            "n_tokens": np.bincount(pairs.prompt, minlength=before.n_prompts),
            "churn": _divided(sums_P, n_P),
        },
        index=pd.Index(mine["prompt"].to_numpy(), name="prompt"),
    )
    by_task = frame.groupby("task", sort=False)["churn"]
    frame["task_mean"] = by_task.transform("mean")
    spread = by_task.transform("std")
    frame["z"] = (frame["churn"] - frame["task_mean"]) / spread.where(spread > 1e-12)
    for name in ("score", "prediction"):
        frame[f"{name}_before"], frame[f"{name}_after"] = mine[name].to_numpy(), theirs[name].to_numpy()
    frame = frame.sort_values("churn", ascending=False, kind="stable")
    frame.attrs["unit"] = {"n_tokens": "tokens", "churn": "share", "task_mean": "share", "z": "standard deviations"}
    return frame


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Some pairs: selected ids of both traces, of the first also in another text; what both routed."""

    part: slice
    prompt_T: np.ndarray
    one_TLK: np.ndarray
    other_TLK: np.ndarray
    elsewhere_TLK: np.ndarray
    routed_TL: np.ndarray


def _blocks(one: RoutingTrace, other: RoutingTrace, pairs: Pairs, *, seed: int) -> Iterator[_Block]:
    top_k_L = np.array([facts.top_k for facts in one.layer_facts])
    held = np.arange(one.top_k) < top_k_L[:, None]
    for part, mine, theirs in paired_experts(one, other, pairs):
        mine, theirs = (each[:, :, : one.top_k].astype(np.int32) for each in (mine, theirs))
        routed_TL = (mine[:, :, 0] < one.n_experts) & (theirs[:, :, 0] < one.n_experts)
        # What is not selected must equal nothing on the other side.
        mine, theirs = np.where(held, mine, _NOBODY), np.where(held, theirs, _NEITHER)
        mine[~routed_TL], theirs[~routed_TL] = _NOBODY, _NEITHER
        rng = np.random.default_rng([seed, part.start])
        yield _Block(
            part=part,
            prompt_T=pairs.prompt[part],
            one_TLK=mine,
            other_TLK=theirs,
            elsewhere_TLK=mine[partners(pairs.prompt[part], rng=rng)],
            routed_TL=routed_TL,
        )


def _distance(one_TLK: np.ndarray, other_TLK: np.ndarray, top_k_L: np.ndarray) -> np.ndarray:
    """(T, L) 1 − shared experts over experts of either."""
    shared_TL = (one_TLK[:, :, :, None] == other_TLK[:, :, None, :]).sum(axis=(2, 3))
    found: np.ndarray = 1 - shared_TL / (2 * top_k_L - shared_TL)
    return found


def _margins(trace: RoutingTrace, rows: np.ndarray) -> np.ndarray:
    """(T, L) least selected score − first runner-up's; NaN where there is none."""
    stored = trace.storage.rows("scores")
    found = np.full((len(rows), trace.n_layers), np.nan)
    if stored is None:
        return found
    scores_TLR = stored.take(rows).astype(np.float64)
    for layer, facts in enumerate(trace.layer_facts):
        if scores_TLR.shape[2] > facts.top_k:
            found[:, layer] = scores_TLR[:, layer, : facts.top_k].min(axis=1) - scores_TLR[:, layer, facts.top_k]
    return found


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
    return found
