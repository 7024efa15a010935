"""Where an expert fires: tokens with the text around them, found in one pass that holds one token a prompt.

Legend: T token of a chunk, R stored rank, P prompt, W place in a window.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from analysis.one_expert import rank_of_expert
from analysis.scan import require_tokens
from routing.chunks import Chunk
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["ContextOrder", "expert_contexts"]

ContextOrder = Literal["highest", "nearest", "random"]


def expert_contexts(
    trace: RoutingTrace,
    *,
    layer: str,
    expert: int,
    order: ContextOrder = "highest",
    near: float | None = None,
    by: Literal["weight", "score"] = "weight",
    role: Literal["selected", "runner_up"] = "selected",
    skip: str | None = None,
    n_contexts: int = 12,
    n_before: int = 14,
    n_after: int = 8,
    seed: int = 0,
) -> pd.DataFrame:
    """Tokens that choose one expert, each of another prompt, with the tokens around them.

    Of each prompt the token that comes first in `order` stands for it; memory grows with prompts, not with tokens.

    Args:
        trace: the trace.
        layer: label of the layer.
        expert: number of the expert in it.
        order: "highest" values first; "nearest" to `near` first; "random" for a draw from all prompts, which shows
            what the expert does as a rule rather than at its extreme, sorted by value.
        near: the value to be near to.
        by: the applied weight, or the selection score.
        role: tokens that select the expert, or those to which it was the first runner-up (by score only).
        skip: id of a prompt to leave out, such as the one being read.
        n_contexts: most rows.
        n_before: tokens of the window before the token.
        n_after: tokens of the window after it.
        seed: of the random order.

    Returns:
        (row) · prompt, task, task_type, position, stack, phase, rank, value, n_tokens (of the prompt's that choose the
        expert), at (place of the token in the window), pieces, values (of each token in the window, NaN where it does
        not choose the expert) · weight or selection score.

    Raises:
        SelectionError: the trace has no such expert, or "nearest" is asked for without `near`.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a search for contexts")
    number = trace.layers.index(layer) if layer in trace.layers else -1
    if number < 0 or not 0 <= expert < trace.layer_facts[number].n_experts:
        msg = f"This trace has no expert {layer}·E{expert}; its layers are {list(trace.layers)}. Choose among them."
        raise SelectionError(msg)
    if order == "nearest" and near is None:
        msg = "Contexts nearest to a value need that value. Give `near`, or another order."
        raise SelectionError(msg)
    ranks = _ranks_of(trace, number, role=role)
    source = "scores" if role == "runner_up" or trace.storage.rows("weights") is None else f"{by}s"
    fields = ("experts", *((source,) if trace.storage.rows(source) is not None else ()))
    best_P, row_P = np.full(trace.n_prompts, np.inf), np.full(trace.n_prompts, -1, dtype=np.int64)
    value_P, rank_P = np.full(trace.n_prompts, np.nan, np.float32), np.zeros(trace.n_prompts, dtype=np.int16)
    n_P = np.zeros(trace.n_prompts, dtype=np.int64)
    for chunk in trace.chunks(fields=fields):
        here, value, rank = _firing(chunk, number, expert=expert, ranks=ranks, source=source)
        if not len(here):
            continue
        key = _key(order, value=value, near=near, rows=chunk.start + here, seed=seed)
        prompt = chunk.prompt[here]
        n_P += np.bincount(prompt, minlength=trace.n_prompts)
        # The first of each prompt in this chunk, then the better of it and what earlier chunks had.
        first = _first_of_each(prompt, key)
        better = first[key[first] < best_P[prompt[first]]]
        at = prompt[better]
        best_P[at], row_P[at] = key[better], chunk.start + here[better]
        value_P[at], rank_P[at] = value[better], rank[better]
    if skip is not None:
        row_P[np.flatnonzero(trace.prompts["prompt"].to_numpy() == skip)] = -1
    found = np.flatnonzero(row_P >= 0)
    found = found[np.lexsort((found, best_P[found]))][:n_contexts]
    if order == "random":
        found = found[np.argsort(-value_P[found], kind="stable")]
    table = _described(trace, found, row_P[found])
    table = table.assign(rank=rank_P[found], value=value_P[found], n_tokens=n_P[found])
    windows = _windows(
        trace, row_P[found], number=number, expert=expert, ranks=ranks, source=source, around=(n_before, n_after)
    )
    for place, name in enumerate(("at", "pieces", "values")):
        table[name] = [window[place] for window in windows]
    table.attrs["unit"] = {"value": "weight" if source == "weights" else "selection score", "n_tokens": "tokens"}
    return table


def _ranks_of(trace: RoutingTrace, number: int, *, role: str) -> slice:
    top_k = trace.layer_facts[number].top_k
    return slice(0, top_k) if role == "selected" else slice(top_k, top_k + 1)


def _firing(
    chunk: Chunk, number: int, *, expert: int, ranks: slice, source: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the chunk that choose the expert, with what value and at which rank."""
    rank = rank_of_expert(chunk, number=number, expert=expert, ranks=ranks)
    here = np.flatnonzero(rank >= 0)
    rank, values = rank[here], getattr(chunk, source)
    if values is None:
        return here, np.full(len(here), np.nan, np.float32), rank
    return here, values[here, number, rank].astype(np.float32), rank


def _first_of_each(prompt: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Place of the smallest key of each prompt, the earliest of equal ones, by prompt."""
    # Nothing is sorted but prompts, and these lie in order as a rule.
    in_order = bool((prompt[1:] >= prompt[:-1]).all())
    place = np.arange(len(prompt)) if in_order else np.argsort(prompt, kind="stable")
    prompt, key = prompt[place], key[place]
    start = np.flatnonzero(np.concatenate([[True], prompt[1:] != prompt[:-1]]))
    run = np.repeat(np.arange(len(start)), np.diff(np.append(start, len(prompt))))
    smallest = np.flatnonzero(key == np.minimum.reduceat(key, start)[run])
    first: np.ndarray = place[smallest[np.concatenate([[True], np.diff(run[smallest]) > 0])]]
    return first


def _key(order: str, *, value: np.ndarray, near: float | None, rows: np.ndarray, seed: int) -> np.ndarray:
    """What to sort by, the smallest first; unknown values come last."""
    if order == "random":
        return _drawn(rows, seed=seed)
    known = np.nan_to_num(value.astype(np.float64), nan=-1e9)
    return -known if near is None or order == "highest" else np.abs(known - near)


def _drawn(rows: np.ndarray, *, seed: int) -> np.ndarray:
    """A number from 0 to 1 for each row that depends on row and seed alone, so that chunks do not matter."""
    # splitmix64, the mixing step of Steele et al. 2014.
    with np.errstate(over="ignore"):
        mixed = rows.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.float64) / 2.0**64


def _described(trace: RoutingTrace, prompts: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    table = trace.prompts.iloc[prompts]
    tokens = {name: _taken(trace, name, rows) for name in ("position", "stack", "phase")}
    return pd.DataFrame(
        {
            "prompt": table["prompt"].to_numpy(dtype=object),
            "task": table["task"].to_numpy(dtype=object),
            "task_type": table["task_type"].to_numpy(dtype=object),
            "position": tokens["position"].astype(np.int64),
            "stack": np.array(trace.stacks, dtype=object)[tokens["stack"]],
            "phase": np.where(tokens["phase"] == 1, "generated", "prompt"),
        }
    )


def _windows(
    trace: RoutingTrace,
    centers: np.ndarray,
    *,
    number: int,
    expert: int,
    ranks: slice,
    source: str,
    around: tuple[int, int],
) -> list[tuple[int, tuple[str, ...], tuple[float, ...]]]:
    """Of each row, its place in its window, the window's pieces, and the value of each place."""
    if not len(centers):
        return []
    spans = [np.arange(max(0, row - around[0]), min(trace.n_tokens, row + around[1] + 1)) for row in centers.tolist()]
    window_W = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
    # All windows are read at once: a look at the disk and at the vocabulary each would take longer than the search.
    row_W = np.concatenate(spans)
    own_W = np.ones(len(row_W), dtype=bool)
    for name in ("prompt", "stack"):
        of_token_W = _taken(trace, name, row_W)
        own_W &= of_token_W == of_token_W[row_W == centers[window_W]][window_W]
    row_W, window_W = row_W[own_W], window_W[own_W]
    id_W = _taken(trace, "token_id", row_W)
    known = trace.vocabulary.reindex(id_W).to_numpy(dtype=object)
    pieces = [f"[{token}]" if pd.isna(piece) else str(piece) for token, piece in zip(id_W, known, strict=True)]
    fires_WR = _taken(trace, "experts", row_W)[:, number, ranks] == expert
    held = trace.storage.rows(source)
    if held is None:
        values_WR = np.ones(fires_WR.shape, np.float32)
    else:
        values_WR = held.take(row_W)[:, number, ranks].astype(np.float32)
    value_W = np.where(fires_WR.any(axis=1), np.where(fires_WR, values_WR, 0).sum(axis=1), np.nan).tolist()
    ends = np.cumsum(np.bincount(window_W, minlength=len(spans))).tolist()
    starts = [0, *ends[:-1]]
    at = (np.flatnonzero(row_W == centers[window_W]) - np.array(starts)).tolist()
    return [
        (place, tuple(pieces[start:end]), tuple(value_W[start:end]))
        for place, start, end in zip(at, starts, ends, strict=True)
    ]


def _taken(trace: RoutingTrace, name: str, rows: np.ndarray) -> np.ndarray:
    held = trace.storage.rows(name)
    assert held is not None
    return held.take(rows)
