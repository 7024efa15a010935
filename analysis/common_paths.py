"""The paths that tokens take most, and which of them layers of different texts would not make.

Legend: P prompt, L layer, N deal of texts, C path code, S shown path.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.paths import MOST_PATHS, first_choice_paths, path_codes
from analysis.rates import draws_of_prompts
from analysis.scan import require_tokens
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["common_paths"]

_UNITS = {
    "experts": "numbers of experts",
    "pieces": "pieces of text",
    "n_tokens": "tokens",
    "share": "share of tokens",
    "share_low": "share of tokens",
    "share_high": "share of tokens",
    "dealt_share": "share of tokens",
    "excess": "standard errors",
    "p_value": "probability",
}
_N_PIECES = 3
_HALF = 0.5


def common_paths(
    trace: RoutingTrace,
    *,
    layers: tuple[str, ...],
    n_shown: int = 12,
    n_deals: int = 20,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """The most common paths of first experts through some layers, beside how common layers of other texts make them.

    Null: each layer after the first is read in other texts, dealt to texts at random (`other_texts.partners`).
    `dealt_share` is the mean over the deals, `excess` the tokens beyond it over the root of what was dealt. `p_value`:
    in how many of the deals any path at all has an excess as large against the other deals. Interval from prompts drawn
    again.

    Args:
        trace: the trace.
        layers: labels of the layers, in their order.
        n_shown: paths to tell, the most common first.
        n_deals: deals of texts for the null; 0 for none.
        n_bootstrap: draws for the interval; 0 for none.
        seed: of deals and draws.

    Returns:
        (path) · experts (their numbers, "3 0 7"), pieces (the three most common ones of its tokens), n_tokens, share,
        share_low, share_high, dealt_share, excess, p_value · tokens, shares of tokens, probability · 0 and up.

    Raises:
        SelectionError: no layer is named, one is not of the trace, or they have more paths than can be counted.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a look at paths")
    unknown = [label for label in layers if label not in trace.layers]
    if not layers or unknown or trace.n_experts ** len(layers) > MOST_PATHS:
        msg = (
            f"Paths were asked for through {list(layers)}; the trace has the layers {list(trace.layers)}, and at most "
            f"{MOST_PATHS:,} paths of {trace.n_experts} experts a layer are counted. Name one layer or a few."
        )
        raise SelectionError(msg)
    numbers = [trace.layers.index(label) for label in layers]
    counts_NC = first_choice_paths(trace, numbers, n_deals=n_deals, seed=seed)
    n_tokens = int(counts_NC[0].sum())
    order = np.argsort(-counts_NC[0], kind="stable")[:n_shown]
    shown_S = order[counts_NC[0, order] > 0]
    counts_PS, pieces = _looked_at(trace, numbers, shown_S)
    low_S, high_S = _interval(trace, counts_PS, n_bootstrap=n_bootstrap, seed=seed)
    dealt_S, excess_S, p_S = _against_deals(counts_NC, shown_S)
    found = pd.DataFrame(
        {
            "experts": [_experts(int(code), trace.n_experts, len(layers)) for code in shown_S],
            "pieces": pieces,
            "n_tokens": counts_NC[0, shown_S],
            "share": counts_NC[0, shown_S] / max(1, n_tokens),
            "share_low": low_S,
            "share_high": high_S,
            "dealt_share": dealt_S / max(1, n_tokens),
            "excess": excess_S,
            "p_value": p_S,
        },
        index=pd.RangeIndex(len(shown_S), name="path"),
    )
    found.attrs.update(unit=dict(_UNITS), n_tokens=n_tokens, layers=list(layers))
    return found


def _against_deals(counts_NC: np.ndarray, shown_S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean tokens of each shown path over the deals, its excess, and how often any path of a deal has as much."""
    n_deals = len(counts_NC) - 1
    if n_deals < 2:
        mean_S = counts_NC[1, shown_S].astype(float) if n_deals else np.full(len(shown_S), np.nan)
        return mean_S, np.full(len(shown_S), np.nan), np.full(len(shown_S), np.nan)
    total_C = counts_NC[1:].sum(axis=0)

    def excess(observed: np.ndarray, mean: np.ndarray) -> np.ndarray:
        found: np.ndarray = (observed - mean) / np.sqrt(mean + _HALF)
        return found

    mean_S = total_C[shown_S] / n_deals
    excess_S = excess(counts_NC[0, shown_S], mean_S)
    # Each deal is held against the others, as the trace is held against all.
    largest_N = np.array([excess(deal_C, (total_C - deal_C) / (n_deals - 1)).max() for deal_C in counts_NC[1:]])
    p_S = (1 + (largest_N >= excess_S[:, None] - 1e-12).sum(axis=1)) / (1 + n_deals)
    return mean_S, excess_S, p_S


def _looked_at(trace: RoutingTrace, layers: list[int], shown_S: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(P, S + 1) tokens of each prompt on each shown path, and all of them; the commonest pieces of each path."""
    counts_PS = np.zeros((trace.n_prompts, len(shown_S) + 1), np.int64)
    ids: list[dict[int, int]] = [{} for _ in shown_S]
    for chunk in trace.chunks(fields=("experts",)):
        code_T, routed_T = path_codes(chunk, layers, n_experts=trace.n_experts)
        counts_PS[:, -1] += np.bincount(chunk.prompt[routed_T], minlength=trace.n_prompts)
        for place, code in enumerate(shown_S):
            here_T = np.flatnonzero(routed_T)[code_T == code]
            counts_PS[:, place] += np.bincount(chunk.prompt[here_T], minlength=trace.n_prompts)
            for token_id, n in zip(*np.unique(chunk.token_id[here_T], return_counts=True), strict=True):
                ids[place][int(token_id)] = ids[place].get(int(token_id), 0) + int(n)
    vocabulary = trace.vocabulary
    pieces = []
    for counts in ids:
        commonest = sorted(counts, key=lambda each: (-counts[each], each))[:_N_PIECES]
        pieces.append(" ".join(str(vocabulary[each]).strip() or "␣" for each in commonest if each in vocabulary.index))
    return counts_PS, pieces


def _interval(
    trace: RoutingTrace, counts_PS: np.ndarray, *, n_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    n_prompts, n_shown = len(counts_PS), counts_PS.shape[1] - 1
    if not n_bootstrap or n_prompts < 2 or not n_shown:
        return np.full(n_shown, np.nan), np.full(n_shown, np.nan)
    weights = np.random.default_rng(seed).multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), n_bootstrap)
    drawn = weights @ counts_PS
    low_S, high_S = np.quantile(drawn[:, :-1] / np.maximum(drawn[:, -1:], 1), [0.025, 0.975], axis=0)
    return low_S, high_S


def _experts(code: int, n_experts: int, n_layers: int) -> str:
    numbers = [str(code // n_experts**power % n_experts) for power in range(n_layers - 1, -1, -1)]
    return " ".join(numbers)
