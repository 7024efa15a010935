"""Who causes an overload: what tasks, and which tokens of the vocabulary, bring to a busy expert.

Legend: P prompt, S task, L layer, E expert, V token of the vocabulary, R resampling.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.balance import max_over_mean
from analysis.rates import draws_of_prompts
from analysis.scan import count_table, prompt_blocks, require_tokens
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["overload_tasks", "overload_tokens"]

_TASK_COLUMNS = {
    "expert": "expert",
    "contribution": "share of the surplus",
    "contribution_low": "share of the surplus",
    "contribution_high": "share of the surplus",
    "surplus": "assignments",
    "share_of_expert": "share of assignments",
    "share_of_tokens": "share of tokens",
    "rate": "share of tokens",
    "max_over_mean_without": "ratio",
}


def overload_tasks(trace: RoutingTrace, *, n_bootstrap: int = 200, seed: int = 0) -> pd.DataFrame:
    """What each task brings to the hottest expert of each layer.

    The hottest expert's surplus over an even share is split exactly: task d brings c_de − T_d k / E. `contribution` is
    that over the whole surplus, so that a layer's contributions sum to 1; negative where a task relieves the expert.
    Shares of the expert's work alone would blame the task with most tokens. `max_over_mean_without`: the layer's
    max_over_mean if the task were left out. Intervals from drawing prompts again within tasks; the expert and the
    surplus that is split stay those that were seen.

    Args:
        trace: the trace.
        n_bootstrap: draws for the intervals; 0 for none.
        seed: of the draws.

    Returns:
        (layer, task) · expert, contribution, contribution_low, contribution_high, surplus, share_of_expert,
        share_of_tokens, rate, max_over_mean_without · shares; contributions any, sum 1 over tasks; NaN where the layer
        is perfectly even or routed nothing.
    """
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    table = count_table(trace, by="task")
    exists_LE = trace.expert_exists.to_numpy()
    counts_SLE, tokens_SL = table.assignments_GLE, table.tokens_GL
    whole_LE = counts_SLE.sum(axis=0)
    hottest_L = np.where(exists_LE, whole_LE, -1).argmax(axis=1)
    fair_L = np.array([facts.top_k / facts.n_experts for facts in trace.layer_facts])
    at = np.arange(trace.n_layers)
    chosen_SL = counts_SLE[:, at, hottest_L]
    surplus_SL = chosen_SL - tokens_SL * fair_L
    low_SL, high_SL = np.full(surplus_SL.shape, np.nan), np.full(surplus_SL.shape, np.nan)
    if n_bootstrap and trace.level != "counts" and trace.n_prompts > 1:
        rng = np.random.default_rng(seed)
        members = [np.flatnonzero(trace.task_of_prompt == task) for task in range(len(trace.tasks))]
        weights = [rng.multinomial(len(m), np.full(len(m), 1 / len(m)), n_bootstrap) for m in members]
        for layers, by_prompt in prompt_blocks(trace):
            mine = np.arange(by_prompt.tokens_GL.shape[1])
            chosen_PL = by_prompt.assignments_GLE[:, mine, hottest_L[layers]]
            surplus_PL = chosen_PL - by_prompt.tokens_GL * fair_L[layers]
            drawn_RSL = np.stack(
                [weight @ surplus_PL[member] for weight, member in zip(weights, members, strict=True)], axis=1
            )
            # The surplus that is split is the one that was seen: drawn anew it may come near 0, and shares explode.
            whole_L = surplus_SL[:, layers].sum(axis=0)
            bounds = np.quantile(drawn_RSL, [0.025, 0.975], axis=0)
            low_SL[:, layers], high_SL[:, layers] = bounds / np.where(np.abs(whole_L) > 1e-9, whole_L, np.nan)
    without_SL = max_over_mean((whole_LE - counts_SLE).astype(float), exists=exists_LE)
    with np.errstate(invalid="ignore", divide="ignore"):
        total_L = surplus_SL.sum(axis=0)
        columns = {
            "expert": np.broadcast_to(hottest_L, surplus_SL.shape),
            "contribution": np.where(np.abs(total_L) > 1e-9, surplus_SL / total_L, np.nan),
            "contribution_low": low_SL,
            "contribution_high": high_SL,
            "surplus": surplus_SL,
            "share_of_expert": chosen_SL / np.where(chosen_SL.sum(axis=0) > 0, chosen_SL.sum(axis=0), np.nan),
            "share_of_tokens": tokens_SL / np.where(tokens_SL.sum(axis=0) > 0, tokens_SL.sum(axis=0), np.nan),
            "rate": chosen_SL / np.where(tokens_SL > 0, tokens_SL, np.nan),
            "max_over_mean_without": without_SL,
        }
    index = pd.MultiIndex.from_product([trace.layers, trace.tasks], names=["layer", "task"])
    frame = pd.DataFrame({name: values.T.ravel() for name, values in columns.items()}, index=index)
    frame.attrs["unit"] = dict(_TASK_COLUMNS)
    return frame


def overload_tokens(
    trace: RoutingTrace,
    *,
    layer: str,
    expert: int | None = None,
    n_shown: int = 20,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Which tokens of the vocabulary bring most to a busy expert.

    As in `overload_tasks`, the surplus over an even share is split exactly, here over token ids: id x brings
    c_xe − T_x k / E, and over all ids contributions sum to 1. `n_prompts` says in how many prompts the token occurs: a
    token of one prompt says little about the expert. Intervals from drawing prompts again.

    Args:
        trace: the trace.
        layer: label of the layer.
        expert: number of the expert; None takes the one with most assignments.
        n_shown: most rows.
        n_bootstrap: draws for the intervals; 0 for none.
        seed: of the draws.

    Returns:
        (row) · token_id, piece, expert, contribution, contribution_low, contribution_high, n_chosen, n_seen, n_prompts,
        rate · share of the surplus, largest first; rates 0 to 1; NaN contributions where the expert has no surplus.

    Raises:
        SelectionError: the trace has no such layer or expert.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a look at token ids")
    if layer not in trace.layers:
        msg = f"This trace has no MoE layer {layer!r}; it holds {list(trace.layers)}. Choose among them."
        raise SelectionError(msg)
    number = trace.layers.index(layer)
    facts = trace.layer_facts[number]
    if expert is None:
        expert = int(count_table(trace).assignments_GLE[0, number, : facts.n_experts].argmax())
    elif not 0 <= expert < facts.n_experts:
        msg = f"Layer {layer} has experts 0 to {facts.n_experts - 1}, not {expert}. Choose among them."
        raise SelectionError(msg)
    fair = facts.top_k / facts.n_experts
    n_ids = 1 + max((int(chunk.token_id.max(initial=-1)) for chunk in trace.chunks(fields=())), default=-1)
    seen_V, chosen_V = np.zeros(n_ids + 1, dtype=np.int64), np.zeros(n_ids + 1, dtype=np.int64)
    for _, token_id, chosen in _routed(trace, number=number, expert=expert):
        # Unknown ids are counted in the last place.
        seen_V += np.bincount(np.where(token_id < 0, n_ids, token_id), minlength=n_ids + 1)
        chosen_V += np.bincount(np.where(token_id < 0, n_ids, token_id)[chosen], minlength=n_ids + 1)
    surplus_V = chosen_V - seen_V * fair
    total = float(surplus_V.sum())
    best = np.argsort(-surplus_V[:n_ids], kind="stable")[:n_shown]
    best = best[chosen_V[best] > 0]
    place_V = np.full(n_ids + 1, -1)
    place_V[best] = np.arange(len(best))
    brought = np.zeros((trace.n_prompts, len(best)))
    occurs = np.zeros((trace.n_prompts, len(best)), dtype=bool)
    for prompt, token_id, chosen in _routed(trace, number=number, expert=expert):
        place = place_V[token_id]
        here = (place >= 0) & (token_id >= 0)
        np.add.at(brought, (prompt[here], place[here]), chosen[here] - fair)
        occurs[prompt[here], place[here]] = True
    low, high = np.full(len(best), np.nan), np.full(len(best), np.nan)
    known = abs(total) > 1e-9
    if n_bootstrap and trace.n_prompts > 1 and len(best) and known:
        rng = np.random.default_rng(seed)
        weights_RP = rng.multinomial(trace.n_prompts, np.full(trace.n_prompts, 1 / trace.n_prompts), n_bootstrap)
        low, high = np.quantile(weights_RP @ brought, [0.025, 0.975], axis=0) / total
    pieces = trace.vocabulary
    frame = pd.DataFrame(
        {
            "token_id": best,
            "piece": [str(pieces.get(token, f"[{token}]")) for token in best],
            "expert": expert,
            "contribution": surplus_V[best] / total if known else np.nan,
            "contribution_low": low,
            "contribution_high": high,
            "n_chosen": chosen_V[best],
            "n_seen": seen_V[best],
            "n_prompts": occurs.sum(axis=0),
            "rate": chosen_V[best] / np.maximum(seen_V[best], 1),
        }
    )
    frame.attrs["unit"] = {
        **dict.fromkeys(("contribution", "contribution_low", "contribution_high"), "share of the surplus"),
        "n_chosen": "tokens",
        "n_seen": "tokens",
        "n_prompts": "prompts",
        "rate": "share of occurrences",
    }
    return frame


def _routed(trace: RoutingTrace, *, number: int, expert: int):  # type: ignore[no-untyped-def]
    """Of each chunk, the tokens that the layer routed: prompt, token id, and whether they chose the expert."""
    top_k = trace.layer_facts[number].top_k
    for chunk in trace.chunks(fields=("experts",)):
        assert chunk.experts is not None
        selected = chunk.experts[:, number, :top_k]
        routed = selected[:, 0] != trace.absent
        yield chunk.prompt[routed], chunk.token_id[routed], (selected[routed] == expert).any(axis=1)
