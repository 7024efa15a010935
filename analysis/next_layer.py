"""How well the next layer's expert can be guessed from this layer's, on prompts that were not learned from.

Legend: P prompt, L layer, E expert.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.placement_study import prompt_halves
from analysis.scan import require_tokens
from analysis.transitions import joint_counts, layer_steps
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["next_layer_predictability"]


def next_layer_predictability(
    trace: RoutingTrace, *, guesses: tuple[int, ...] = (1, 2, 4), n_bootstrap: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How often a table of transitions guesses the next layer's first expert, on prompts that it has not seen.

    From one half of the prompts (half of each task) the m experts that most often follow an expert are learned; on the
    other half it is counted how often the next layer's first expert is among them. `always_same`: the m busiest experts
    of the next layer, whatever this layer chose; `chance`: m / E. Interval from drawing the judged prompts again.

    Args:
        trace: the trace.
        guesses: how many experts may be named.
        n_bootstrap: draws for the interval; 0 for none.
        seed: of halves and draws.

    Returns:
        (step, guesses) · accuracy, accuracy_low, accuracy_high, always_same, chance, n_tokens · share of tokens · 0 to
        1; NaN where the judged half holds no token.

    Raises:
        SelectionError: there are fewer than two prompts, or a number of guesses is below 1.
        TraceError: the trace holds counts only.

    References:
        Guesses of the next layer's experts are what loading experts ahead of time rests on (Eliseev & Mazur 2023).
    """
    require_tokens(trace, for_what="a guess at the next layer")
    if trace.n_prompts < 2 or min(guesses, default=0) < 1:
        msg = (
            f"With {trace.n_prompts} prompts and {list(guesses)} guesses nothing can be learned on one half and "
            "judged on the other. Record more prompts, or give guesses of 1 or more."
        )
        raise SelectionError(msg)
    steps = layer_steps(trace)
    fitted, judged = prompt_halves(trace, seed=seed)
    block_P = np.zeros(trace.n_prompts, dtype=np.int32)
    block_P[judged] = -1
    ones_L = np.ones(trace.n_layers, dtype=np.int64)
    order = {}
    for number, joint_BEE in joint_counts(trace, steps, ones_L, block_P, n_blocks=1):
        joint_EE = joint_BEE[0]
        overall_E = joint_EE.sum(axis=0)
        # An expert that was never seen is followed by what is busy; ties go to the busier.
        ranked_EE = np.argsort(-(joint_EE + overall_E / max(1, overall_E.sum()) * 1e-3), axis=1, kind="stable")
        order[number] = ranked_EE, np.argsort(-overall_E, kind="stable")
    hits = {(number, m): np.zeros((trace.n_prompts, 2)) for number in order for m in guesses}
    seen = {number: np.zeros(trace.n_prompts) for number in order}
    place = np.isin(np.arange(trace.n_prompts), judged)
    for chunk in trace.chunks(fields=("experts",)):
        assert chunk.experts is not None
        mine = place[chunk.prompt]
        for number, (ranked_EE, busiest_E) in order.items():
            one, other = steps[number]
            here = mine & (chunk.experts[:, one, 0] < trace.n_experts) & (chunk.experts[:, other, 0] < trace.n_experts)
            now, then = chunk.experts[here, one, 0].astype(int), chunk.experts[here, other, 0].astype(int)
            prompt = chunk.prompt[here]
            seen[number] += np.bincount(prompt, minlength=trace.n_prompts)
            for m in guesses:
                learned = (ranked_EE[now][:, :m] == then[:, None]).any(axis=1)
                same = np.isin(then, busiest_E[:m])
                for column, hit in enumerate((learned, same)):
                    hits[number, m][:, column] += np.bincount(prompt, weights=hit, minlength=trace.n_prompts)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(judged), np.full(len(judged), 1 / len(judged)), n_bootstrap)
    rows, index = [], []
    for (number, m), counts in hits.items():
        one, other = steps[number]
        total = seen[number].sum()
        low = high = np.nan
        if n_bootstrap and total and len(judged) > 1:
            with np.errstate(invalid="ignore"):
                drawn = (weights @ counts[judged, 0]) / (weights @ seen[number][judged])
            low, high = np.nanquantile(drawn, [0.025, 0.975])
        index.append((f"{trace.layers[one]}→{trace.layers[other]}", m))
        rows.append(
            {
                "accuracy": counts[:, 0].sum() / total if total else np.nan,
                "accuracy_low": low,
                "accuracy_high": high,
                "always_same": counts[:, 1].sum() / total if total else np.nan,
                "chance": min(1.0, m / trace.layer_facts[other].n_experts),
                "n_tokens": int(total),
            }
        )
    columns = ["accuracy", "accuracy_low", "accuracy_high", "always_same", "chance", "n_tokens"]
    multi = pd.MultiIndex.from_tuples(index, names=["step", "guesses"]) if index else _no_steps()
    frame = pd.DataFrame(rows, index=multi, columns=columns)
    frame.attrs["unit"] = dict.fromkeys(columns, "share of tokens") | {"n_tokens": "tokens"}
    return frame


def _no_steps() -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=["step", "guesses"])
