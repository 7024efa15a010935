"""Paths through several layers, and what consecutive tokens share.

Legend: P prompt, L layer, E expert, K selected rank, S sequence (prompt and stack), N deal of texts,
C path code, W layer of a path.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.nulls import p_value
from analysis.other_texts import partners
from analysis.rates import decided_by_task
from analysis.scan import mapped_chunks, require_tokens
from routing.chunks import Chunk
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["first_choice_paths", "path_codes", "path_entropy", "path_windows", "repetition", "window_name"]

MOST_PATHS = 1 << 20
"""Most different paths that are counted one by one; windows are kept short enough."""

LARGEST_BLOCK = 1 << 25

_PATH_UNITS = {
    "entropy_nats": "nats",
    "dealt_nats": "nats",
    "independent_nats": "nats",
    "n_paths": "paths",
    "dealt_paths": "paths",
    "top_share": "share of tokens",
    "dealt_top_share": "share of tokens",
    "p_value": "probability",
    "n_tokens": "tokens",
}


def path_entropy(trace: RoutingTrace, *, window: int | None = None, n_deals: int = 20, seed: int = 0) -> pd.DataFrame:
    """How many ways tokens take through consecutive layers, against layers that know nothing of each other.

    A path is the first expert in each of `window` consecutive layers of a stack. `entropy_nats`: of the paths;
    `independent_nats`: the sum of the layers' own entropies, what independent layers would reach with endless tokens;
    `dealt_nats`: what they reach with these tokens, each layer after the first read in other texts, dealt to texts at
    random (`other_texts.partners`). Of long paths there are more than tokens, so compare with `dealt_nats`. `p_value`:
    how often layers of different texts have as little entropy.

    Args:
        trace: the trace.
        window: layers of a path; None takes 4, or as many as leave at most a million paths.
        n_deals: deals of texts for the null; 0 for none.
        seed: of the deals.

    Returns:
        (window) · entropy_nats, dealt_nats, independent_nats, n_paths, dealt_paths, top_share, dealt_top_share,
        p_value, n_tokens · nats, paths, shares of tokens · 0 and up; windows named "L00–L03", no row where a stack has
        too few layers.

    Raises:
        SelectionError: the window is below 2, or has more paths than can be counted.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a look at paths")
    windows = path_windows(trace, window=window)
    rows = []
    for layers in windows:
        counts_NC = first_choice_paths(trace, layers, n_deals=n_deals, seed=seed)
        entropies = [_entropy(each) for each in counts_NC]
        n_paths = (counts_NC > 0).sum(axis=1)
        n_tokens = int(counts_NC[0].sum())
        top = counts_NC.max(axis=1) / max(1, n_tokens)
        some = bool(n_deals and n_tokens)
        sides = counts_NC[0].reshape((trace.n_experts,) * len(layers))
        independent = sum(
            _entropy(sides.sum(axis=tuple(other for other in range(len(layers)) if other != each)))
            for each in range(len(layers))
        )
        rows.append(
            {
                "entropy_nats": entropies[0] if n_tokens else np.nan,
                "dealt_nats": float(np.mean(entropies[1:])) if some else np.nan,
                "independent_nats": independent if n_tokens else np.nan,
                "n_paths": int(n_paths[0]),
                "dealt_paths": float(n_paths[1:].mean()) if some else np.nan,
                "top_share": top[0] if n_tokens else np.nan,
                "dealt_top_share": float(top[1:].mean()) if some else np.nan,
                "p_value": float(
                    p_value(int((np.array(entropies[1:]) <= entropies[0] + 1e-12).sum()), n_permutations=n_deals)
                )
                if some
                else np.nan,
                "n_tokens": n_tokens,
            }
        )
    names = [window_name(trace, layers) for layers in windows]
    frame = pd.DataFrame(rows, index=pd.Index(names, name="window"), columns=list(_PATH_UNITS))
    frame.attrs["unit"] = dict(_PATH_UNITS)
    return frame


def path_windows(trace: RoutingTrace, *, window: int | None = None) -> list[list[int]]:
    """Places of the layers of each path: so many that follow each other in one stack.

    Args:
        trace: the trace.
        window: layers of a path; None takes 4, or as many as leave at most a million paths.

    Raises:
        SelectionError: the window is below 2, or has more paths than can be counted.
    """
    longest = max(2, int(np.log(MOST_PATHS) / np.log(max(2, trace.n_experts)) + 1e-9))
    window = min(4, longest) if window is None else window
    if not 2 <= window <= longest:
        msg = (
            f"Paths of {window} layers of {trace.n_experts} experts cannot be counted one by one. "
            f"Choose a window of 2 to {longest}."
        )
        raise SelectionError(msg)
    stacks: dict[str, list[int]] = {}
    for number, facts in enumerate(trace.layer_facts):
        stacks.setdefault(facts.stack, []).append(number)
    return [layers[first : first + window] for layers in stacks.values() for first in range(len(layers) - window + 1)]


def window_name(trace: RoutingTrace, layers: list[int]) -> str:
    """A window of layers as tables name it: L00–L03."""
    return f"{trace.layers[layers[0]]}–{trace.layers[layers[-1]]}"


def repetition(trace: RoutingTrace, *, n_bootstrap: int = 200, seed: int = 0) -> pd.DataFrame:
    """How often consecutive tokens of a text go to the same expert, against three kinds of chance.

    `same_first`: the first expert is the same; `any_shared`: the selected experts have one in common.

    - `chance_even`, `any_even`: with even loads, 1 / E and 1 − C(E − k, k) / C(E, k).
    - `chance_load`: two tokens drawn anywhere in the run, Σ_e p_e².
    - `chance_text`: two tokens drawn from the same text: what the text's topic gives without any order. What goes
      beyond it is about neighbors. Interval of `same_first` and of its difference to `chance_text` (`excess`) from
      drawing prompts again.

    Args:
        trace: the trace.
        n_bootstrap: draws for the intervals; 0 for none.
        seed: of the draws.

    Returns:
        (layer) · same_first, same_first_low, same_first_high, chance_even, chance_load, chance_text, excess,
        excess_low, excess_high, any_shared, any_even, n_pairs · share of pairs · 0 to 1; NaN where no tokens
        follow each other.

    Raises:
        TraceError: the trace holds counts only.

    References:
        Jiang et al. 2024, "Mixtral of Experts" (repeated assignments).
    """
    require_tokens(trace, for_what="a look at consecutive tokens")
    # Not all machines have it loaded already.
    from scipy.special import comb

    found_PL3 = _repeats(trace)
    weights = np.random.default_rng(seed).multinomial(
        trace.n_prompts, np.full(trace.n_prompts, 1 / max(1, trace.n_prompts)), n_bootstrap
    )
    weights = np.vstack([np.ones(trace.n_prompts, dtype=np.int64), weights])
    rows = []
    for number, first_PE in _first_choices(trace):
        facts = trace.layer_facts[number]
        n_P = first_PE.sum(axis=1).astype(float)
        same_P = (first_PE * (first_PE - 1.0)).sum(axis=1)
        pairs_P = n_P * (n_P - 1)
        follow_P, repeat_P, any_P = found_PL3[:, number].T.astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            same = (weights @ repeat_P) / (weights @ follow_P)
            # Each text's chance counts as often as it has neighbors.
            chance_P = np.where(pairs_P > 0, same_P / np.maximum(pairs_P, 1), 0.0)
            text = (weights @ (follow_P * chance_P)) / (weights @ follow_P)
        bounds = np.full((2, 2), np.nan)
        if n_bootstrap and trace.n_prompts > 1 and np.isfinite(same[1:]).any():
            bounds = np.nanquantile(np.stack([same, same - text])[:, 1:], [0.025, 0.975], axis=1)
        load = first_PE.sum(axis=0) / max(1.0, n_P.sum())
        n_pairs = follow_P.sum()
        none_shared = comb(facts.n_experts - facts.top_k, facts.top_k) / comb(facts.n_experts, facts.top_k)
        rows.append(
            {
                "same_first": same[0],
                "same_first_low": bounds[0, 0],
                "same_first_high": bounds[1, 0],
                "chance_even": 1 / facts.n_experts,
                "chance_load": float((load**2).sum()) if n_pairs else np.nan,
                "chance_text": text[0],
                "excess": same[0] - text[0],
                "excess_low": bounds[0, 1],
                "excess_high": bounds[1, 1],
                "any_shared": any_P.sum() / n_pairs if n_pairs else np.nan,
                "any_even": 1 - none_shared,
                "n_pairs": int(n_pairs),
            }
        )
    frame = pd.DataFrame(rows, index=pd.Index(list(trace.layers), name="layer"))
    frame.attrs["unit"] = dict.fromkeys(frame.columns, "share of pairs") | {"n_pairs": "pairs"}
    return frame


def path_codes(chunk: Chunk, layers: list[int], *, n_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """A number for the path of each token that all these layers routed, and which tokens these are."""
    assert chunk.experts is not None
    first_TW = chunk.experts[:, layers, 0].astype(np.int64)
    routed_T: np.ndarray = np.all(first_TW < n_experts, axis=1)
    return _codes(first_TW[routed_T], n_experts=n_experts), routed_T


def first_choice_paths(trace: RoutingTrace, layers: list[int], *, n_deals: int, seed: int) -> np.ndarray:
    """(1 + N, C) how often each path was taken, and would be with layers read in different texts."""
    n_experts, n_codes = trace.n_experts, trace.n_experts ** len(layers)
    # Where the router decided once a task, its prompts are one text read many times.
    by_task = decided_by_task(trace)

    def of_chunk(chunk: Chunk) -> np.ndarray:
        assert chunk.experts is not None
        first_TW = chunk.experts[:, layers, 0].astype(np.int64)
        routed = (first_TW < n_experts).all(axis=1)
        first_TW, prompt_T = first_TW[routed], (chunk.task if by_task else chunk.prompt)[routed]
        rng = np.random.default_rng([seed, chunk.start])
        counts = np.zeros((1 + n_deals, n_codes), np.int64)
        counts[0] = np.bincount(_codes(first_TW, n_experts=n_experts), minlength=n_codes)
        for number in range(1, 1 + n_deals):
            columns = [first_TW[partners(prompt_T, rng=rng), column] for column in range(1, len(layers))]
            dealt_TW = np.stack([first_TW[:, 0], *columns], axis=1)
            counts[number] = np.bincount(_codes(dealt_TW, n_experts=n_experts), minlength=n_codes)
        return counts

    total = np.zeros((1 + n_deals, n_codes), np.int64)
    for part in mapped_chunks(trace, of_chunk):
        total += part
    return total


def _codes(first_TW: np.ndarray, *, n_experts: int) -> np.ndarray:
    code_T = np.zeros(len(first_TW), np.int64)
    for column in range(first_TW.shape[1]):
        code_T = code_T * n_experts + first_TW[:, column]
    return code_T


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log(share)).sum())


def _repeats(trace: RoutingTrace) -> np.ndarray:
    """(P, L, 3) pairs of consecutive tokens, those with the same first expert, those that share any."""
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_repeats

    n_stacks = max(1, len(trace.stacks))
    top_k_L = np.array([facts.top_k for facts in trace.layer_facts], dtype=np.int64)
    last_S = np.full(trace.n_prompts * n_stacks, -1, dtype=np.int64)
    ids_SLK = np.full((len(last_S), trace.n_layers, max(1, trace.top_k)), trace.absent, dtype=np.int32)
    found_PL3 = np.zeros((trace.n_prompts, trace.n_layers, 3), dtype=np.int64)
    # One chunk after the other: a text may go on in the next.
    for chunk in trace.chunks(fields=("experts",)):
        key_T = chunk.prompt.astype(np.int64) * n_stacks + chunk.stack
        count_repeats(
            frozen(chunk.experts),  # type: ignore[arg-type]
            key_T,
            chunk.prompt.astype(np.int64),
            chunk.position.astype(np.int64),
            top_k_L,
            last_S,
            ids_SLK,
            found_PL3,
            trace.n_experts,
        )
    return found_PL3


def _first_choices(trace: RoutingTrace):  # type: ignore[no-untyped-def]
    """Of each layer, its number and how often each prompt's tokens chose each expert first."""
    step = max(1, LARGEST_BLOCK // max(1, trace.n_prompts * (trace.n_experts + 1)))
    for first in range(0, trace.n_layers, step):
        layers = range(first, min(first + step, trace.n_layers))
        counts = np.zeros((len(layers), trace.n_prompts * (trace.n_experts + 1)), np.int64)
        for chunk in trace.chunks(fields=("experts",)):
            assert chunk.experts is not None
            for place, layer in enumerate(layers):
                slot = np.minimum(chunk.experts[:, layer, 0].astype(np.int64), trace.n_experts)
                code = chunk.prompt.astype(np.int64) * (trace.n_experts + 1) + slot
                counts[place] += np.bincount(code, minlength=counts.shape[1])
        for place, layer in enumerate(layers):
            yield layer, counts[place].reshape(trace.n_prompts, -1)[:, : trace.n_experts]
