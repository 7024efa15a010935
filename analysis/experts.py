"""One expert seen closely: which tasks, tokens and prompts it serves.

Legend: P prompt, S task, B bootstrap draw, V token id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.counts import assignment_counts, routed_tokens
from analysis.measure import ONE, about, fixed_weights, measure_of, rate_unit, share_unit
from analysis.one_expert import NOT_ROUTED, rank_of_expert
from analysis.rates import decided_by_task
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["ExpertProfile", "expert_profile"]

# 97.5th percentile of the normal distribution, for Wilson's interval.
_Z_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class ExpertProfile:
    """What one expert serves.

    Attributes:
        by_task: index task · task_type, n_prompts, rate with rate_low and rate_high, lift, share_of_expert,
            share_of_tokens.
        tokens: one row a token of the vocabulary, most telling first · token_id, piece, n_chosen, n_seen, rate,
            rate_low, lift; None where the trace holds no tokens.
        prompts: one row a prompt, highest rate first · prompt, task, task_type, rate, n_tokens, text; None where
            the trace holds no tokens.
        overall_rate: share of all the layer's tokens that choose the expert.
    """

    by_task: pd.DataFrame
    tokens: pd.DataFrame | None
    prompts: pd.DataFrame | None
    overall_rate: float


def expert_profile(
    trace: RoutingTrace,
    *,
    layer: str,
    expert: int,
    n_tokens: int = 200,
    n_prompts: int = 200,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> ExpertProfile:
    """Which tasks, tokens and prompts one expert serves.

    - `rate`: of a task, the mean over its prompts of the share of their tokens that choose the expert, with a 95 %
      interval from drawing prompts with replacement (NaN for a task of a single prompt, and where the router decided
      once a task). Of a token, the share of its occurrences.
      Where every expert is always selected, the mean weight that it was given.
    - `lift`: log2 of the rate over that of all tokens; NaN where the expert was never chosen.
    - `share_of_expert`: the task's share of the expert's assignments; `share_of_tokens`: its share of the tokens
      that the layer routed. An expert that serves all tasks alike has equal shares.
    - `rate_low`: of a token, the lower end of Wilson's 95 % interval, by which tokens are ranked: a token seen once
      tells little.

    Args:
        trace: the trace.
        layer: label of the layer.
        expert: number of the expert in it.
        n_tokens: most rows of `tokens`.
        n_prompts: most rows of `prompts`.
        n_bootstrap: draws for the intervals; 0 for none.
        seed: of the draws.

    Returns:
        an ExpertProfile · tables · rates and shares 0 to 1.

    Raises:
        SelectionError: the trace has no such expert.

    References:
        Wilson 1927 (interval of a share).
    """
    number = _layer_number(trace, layer=layer, expert=expert)
    if trace.level == "counts":
        return _from_counts(trace, layer=layer, expert=expert)
    scan = _scan(trace, number=number, expert=expert)
    tokens_P, chosen_P = scan.tokens_P, scan.chosen_P
    with np.errstate(invalid="ignore"):
        rate_P = np.where(tokens_P > 0, chosen_P / np.maximum(tokens_P, 1), np.nan)
    overall = chosen_P.sum() / max(1, tokens_P.sum())
    by_task = _by_task(trace, chosen_P=chosen_P, tokens_P=tokens_P, overall=overall)
    bounds = _bootstrap(trace, rate_P, n_bootstrap=n_bootstrap, seed=seed)
    by_task.insert(3, "rate_low", bounds[0])
    by_task.insert(4, "rate_high", bounds[1])
    return ExpertProfile(
        by_task=by_task,
        tokens=_tokens(trace, scan, overall=overall, most=n_tokens),
        prompts=_prompts(trace, rate_P, tokens_P, most=n_prompts),
        overall_rate=float(overall),
    )


@dataclass(frozen=True, kw_only=True)
class _Scan:
    tokens_P: np.ndarray
    chosen_P: np.ndarray
    seen_V: np.ndarray
    chosen_V: np.ndarray


def _scan(trace: RoutingTrace, *, number: int, expert: int) -> _Scan:
    top_k = trace.layer_facts[number].top_k
    weighing = measure_of(trace) == "routed weight"
    tokens_P = np.zeros(trace.n_prompts, dtype=np.int64)
    chosen_P = np.zeros(trace.n_prompts)
    seen_V, chosen_V = np.zeros(0, dtype=np.int64), np.zeros(0)
    for chunk in trace.chunks(fields=("experts", "weights") if weighing else ("experts",)):
        rank = rank_of_expert(chunk, number=number, expert=expert, ranks=slice(0, top_k))
        routed = rank != NOT_ROUTED
        here = np.flatnonzero(rank >= 0)
        amount = np.ones(len(here))
        if weighing:
            assert chunk.weights is not None
            amount = fixed_weights(chunk.weights[here, number, rank[here]]) / ONE
        tokens_P += np.bincount(chunk.prompt[routed], minlength=trace.n_prompts)
        chosen_P += np.bincount(chunk.prompt[here], weights=amount, minlength=trace.n_prompts)
        seen_V = _added(seen_V, np.bincount(chunk.token_id[routed & (chunk.token_id >= 0)]))
        known = chunk.token_id[here] >= 0
        chosen_V = _added(chosen_V, np.bincount(chunk.token_id[here][known], weights=amount[known]))
    chosen_V = _added(chosen_V, seen_V * 0.0)
    if not weighing:
        chosen_P, chosen_V = chosen_P.astype(np.int64), chosen_V.astype(np.int64)
    return _Scan(tokens_P=tokens_P, chosen_P=chosen_P, seen_V=seen_V, chosen_V=chosen_V)


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _by_task(trace: RoutingTrace, *, chosen_P: np.ndarray, tokens_P: np.ndarray, overall: float) -> pd.DataFrame:
    n_tasks = len(trace.tasks)
    task_P = trace.task_of_prompt
    there = tokens_P > 0
    rate_P = chosen_P[there] / tokens_P[there]
    n_prompts = np.bincount(task_P[there], minlength=n_tasks)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.bincount(task_P[there], weights=rate_P, minlength=n_tasks) / n_prompts
    chosen = np.bincount(task_P, weights=chosen_P, minlength=n_tasks)
    tokens = np.bincount(task_P, weights=tokens_P, minlength=n_tasks)
    return _task_table(trace, n_prompts=n_prompts, rate=rate, chosen=chosen, tokens=tokens, overall=overall)


def _task_table(
    trace: RoutingTrace,
    *,
    n_prompts: np.ndarray,
    rate: np.ndarray,
    chosen: np.ndarray,
    tokens: np.ndarray,
    overall: float,
) -> pd.DataFrame:
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "task_type": list(trace.task_types.values()),
            "n_prompts": n_prompts,
            "rate": rate,
            "lift": np.log2(rate / overall) if overall > 0 else np.full(len(rate), np.nan),
            "share_of_expert": chosen / chosen.sum() if chosen.sum() else np.full(len(rate), np.nan),
            "share_of_tokens": tokens / tokens.sum() if tokens.sum() else np.full(len(rate), np.nan),
        }
    frame = pd.DataFrame(columns, index=pd.Index(list(trace.tasks), name="task"))
    frame.attrs |= about(trace)
    frame.attrs["unit"] = {
        "n_prompts": "prompts",
        **dict.fromkeys(("rate", "rate_low", "rate_high"), rate_unit(trace)),
        "lift": "log2 ratio",
        "share_of_expert": share_unit(trace),
        "share_of_tokens": "share of tokens",
    }
    return frame


def _bootstrap(
    trace: RoutingTrace, rate_P: np.ndarray, *, n_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(len(trace.tasks), np.nan), np.full(len(trace.tasks), np.nan)
    rng = np.random.default_rng(seed)
    repeated = decided_by_task(trace)
    means: dict[int, np.ndarray] = {}
    for task in range(len(trace.tasks)):
        rates = rate_P[(trace.task_of_prompt == task) & np.isfinite(rate_P)]
        if len(rates) < 2 or not n_bootstrap or repeated:
            continue
        means[task] = rng.choice(rates, size=(n_bootstrap, len(rates))).mean(axis=1)
    if means:
        # One call for all tasks: most of what a quantile of so few costs is the call.
        low[list(means)], high[list(means)] = np.quantile(np.stack(list(means.values())), [0.025, 0.975], axis=1)
    return low, high


def _tokens(trace: RoutingTrace, scan: _Scan, *, overall: float, most: int) -> pd.DataFrame:
    ids = np.flatnonzero(scan.chosen_V)
    chosen, seen = scan.chosen_V[ids], scan.seen_V[ids]
    rate = chosen / seen
    low = _wilson_low(rate, seen)
    order = np.lexsort((ids, -chosen, -low))[:most]
    pieces = trace.vocabulary
    ids = ids[order]
    frame = pd.DataFrame(
        {
            "token_id": ids,
            "piece": [str(pieces.get(token, "")) for token in ids],
            "n_chosen": chosen[order],
            "n_seen": seen[order],
            "rate": rate[order],
            "rate_low": low[order],
            "lift": np.log2(rate[order] / overall) if overall > 0 else np.nan,
        }
    )
    frame.attrs["unit"] = {"rate": "share of occurrences", "rate_low": "share of occurrences", "lift": "log2 ratio"}
    return frame


def _wilson_low(rate: np.ndarray, n_seen: np.ndarray) -> np.ndarray:
    z2 = _Z_95**2
    center = rate + z2 / (2 * n_seen)
    spread = _Z_95 * np.sqrt(np.maximum(rate * (1 - rate), 0) / n_seen + z2 / (4 * n_seen**2))
    low: np.ndarray = np.maximum((center - spread) / (1 + z2 / n_seen), 0.0)
    return low


def _prompts(trace: RoutingTrace, rate_P: np.ndarray, tokens_P: np.ndarray, *, most: int) -> pd.DataFrame:
    known = np.flatnonzero(np.isfinite(rate_P) & (rate_P > 0))
    best = known[np.lexsort((known, -rate_P[known]))][:most]
    rows = trace.prompts.iloc[best]
    frame = pd.DataFrame(
        {
            "prompt": rows["prompt"].to_numpy(),
            "task": rows["task"].to_numpy(),
            "task_type": rows["task_type"].to_numpy(),
            "rate": rate_P[best],
            "n_tokens": tokens_P[best],
            "text": rows["text"].to_numpy(),
        }
    )
    frame.attrs["unit"] = {"rate": rate_unit(trace), "n_tokens": "tokens"}
    return frame


def _from_counts(trace: RoutingTrace, *, layer: str, expert: int) -> ExpertProfile:
    chosen = assignment_counts(trace, by="task").sel(layer=layer, expert=expert).to_numpy().astype(float)
    tokens = routed_tokens(trace, by="task").sel(layer=layer).to_numpy().astype(float)
    overall = float(chosen.sum() / tokens.sum()) if tokens.sum() else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = chosen / tokens
    n_prompts = np.bincount(trace.task_of_prompt, minlength=len(trace.tasks))
    by_task = _task_table(trace, n_prompts=n_prompts, rate=rate, chosen=chosen, tokens=tokens, overall=overall)
    by_task.insert(3, "rate_low", np.nan)
    by_task.insert(4, "rate_high", np.nan)
    return ExpertProfile(by_task=by_task, tokens=None, prompts=None, overall_rate=overall)


def _layer_number(trace: RoutingTrace, *, layer: str, expert: int) -> int:
    if layer not in trace.layers:
        msg = f"This trace has no MoE layer {layer!r}; it holds {list(trace.layers)}. Choose among them."
        raise SelectionError(msg)
    number = trace.layers.index(layer)
    n_experts = trace.layer_facts[number].n_experts
    if not 0 <= expert < n_experts:
        msg = f"Layer {layer} has experts 0 to {n_experts - 1}, not {expert}. Choose among them."
        raise SelectionError(msg)
    return number
