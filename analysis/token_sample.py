"""A few thousand tokens that stand for all: as many of each task and phase as there are, up to the same number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.scan import require_tokens
from routing.chunks import PHASES
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["equal_shares", "stratified_rows", "token_sample"]


def token_sample(trace: RoutingTrace, *, n_tokens: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Tokens drawn at random, the same number of each task and phase as far as it has so many.

    Tokens of a large task would otherwise cover those of a small one, and read tokens the generated ones. What is
    drawn so is no likeness of the whole: `weight` says how many tokens of the trace each one stands for, and the
    weights add up to all of them.

    Args:
        trace: the trace.
        n_tokens: how many to draw; all, where there are no more.
        seed: of the draw.

    Returns:
        (row) · token, prompt, position, task, task_type, phase, weight · tokens of the trace; `token` is the row of the
        token axis, ascending, `prompt` an id, `weight` 1 and up.

    Raises:
        SelectionError: fewer than one token is asked for.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a sample of tokens")
    if n_tokens < 1:
        msg = f"A sample of {n_tokens} tokens shows nothing. Ask for one or more."
        raise SelectionError(msg)
    prompt_T, phase_T = np.zeros(trace.n_tokens, np.int32), np.zeros(trace.n_tokens, np.uint8)
    stratum_T = np.zeros(trace.n_tokens, np.int32)
    position_T = np.zeros(trace.n_tokens, np.int32)
    for chunk in trace.chunks(fields=()):
        rows = slice(chunk.start, chunk.stop)
        prompt_T[rows], phase_T[rows], position_T[rows] = chunk.prompt, chunk.phase, chunk.position
        stratum_T[rows] = chunk.task.astype(np.int32) * len(PHASES) + chunk.phase
    tokens, weight = stratified_rows(stratum_T, n_rows=n_tokens, seed=seed)
    prompts = trace.prompts.iloc[prompt_T[tokens]]
    found = pd.DataFrame(
        {
            "token": tokens,
            "prompt": prompts["prompt"].to_numpy(dtype=object),
            "position": position_T[tokens],
            "task": prompts["task"].to_numpy(dtype=object),
            "task_type": prompts["task_type"].to_numpy(dtype=object),
            "phase": np.array(PHASES, dtype=object)[phase_T[tokens]],
            "weight": weight,
        }
    )
    found.attrs["unit"] = "tokens of the trace"
    return found


def stratified_rows(stratum_N: np.ndarray, *, n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a draw without replacement in which strata are as even as their sizes allow.

    Returns:
        (drawn) and (drawn) · rows, ascending, and how many rows each stands for · 0 and up, 1 and up.
    """
    rng = np.random.default_rng(seed)
    names, code_N, sizes = np.unique(stratum_N, return_inverse=True, return_counts=True)
    by_stratum = np.argsort(code_N, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for number, taken in enumerate(equal_shares(sizes, n_rows) if len(names) else ()):
        if taken:
            drawn = rng.choice(sizes[number], taken, replace=False)
            rows.append(by_stratum[starts[number] + drawn])
            weights.append(np.full(taken, sizes[number] / taken))
    drawn_rows, weight = np.concatenate(rows), np.concatenate(weights)
    order = np.argsort(drawn_rows)
    return drawn_rows[order], weight[order]


def equal_shares(sizes: np.ndarray, n_rows: int) -> np.ndarray:
    """How many to draw of each stratum: the same number of all, and all of those that have fewer.

    Returns:
        (stratum) · rows · 0 to the stratum's size; together `n_rows`, or all there are.
    """
    taken = np.zeros(len(sizes), np.int64)
    left = min(n_rows, int(sizes.sum()))
    # From the smallest on, each takes its share of what is left, so that what it lacks goes to the larger ones.
    for place, number in enumerate(np.argsort(sizes, kind="stable")):
        taken[number] = min(int(sizes[number]), left // (len(sizes) - place))
        left -= int(taken[number])
    return taken
