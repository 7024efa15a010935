"""What the router almost did: who came second to whom, and how often it was a matter of rounding.

Legend: T token, K selected rank, E expert, P prompt, C cell of the (selected, runner-up) table.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.nulls import q_values
from analysis.scan import require_tokens, token_groups
from routing.errors import SelectionError, TraceError
from routing.facts import LayerFacts
from routing.trace import RoutingTrace

__all__ = ["near_ties", "runner_up_matrix"]

FEWEST = 5.0
"""Tokens that independence must give a cell for it to be tested."""

_STEPS, _CLOSE = 200, 1e-9


def runner_up_matrix(trace: RoutingTrace, *, layer: str, fdr: float = 0.05) -> xr.Dataset:
    """Which expert came second when an expert was selected, against a runner-up that does not depend on it.

    A selected expert cannot be its own runner-up, so independence holds for the other cells only: `expected` is the
    table of products a_i b_j, without its diagonal, that has the same sums of rows and columns. Each cell's spread is
    that of its residuals over whole prompts.

    Args:
        trace: a trace with at least one runner-up.
        layer: label of the layer.
        fdr: share of false calls among the significant cells.

    Returns:
        (expert, runner_up) · n_tokens, expected in tokens; share, expected_share of the expert's tokens; lift in log2
        ratio; z in standard errors; p_value, q_value, significant · NaN on the diagonal, p_value NaN in cells where
        independence gives fewer than 5 tokens.

    Raises:
        SelectionError: there is no such layer.
        TraceError: the trace holds counts only, or no runner-up.
    """
    facts = _facts(trace, layer)
    ranks_TR, prompt_T = _choices(trace, layer, facts=facts)
    n_experts = facts.n_experts
    counts, *sums = _seconds(ranks_TR, prompt_T, n_experts=n_experts)
    expected = _independent(counts)
    spread = _spread(*sums, counts=counts, expected=expected)
    off = ~np.eye(n_experts, dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(off & (expected > 0), (counts - expected) / spread, np.nan)
        lift = np.where(off, np.log2(counts / expected), np.nan)
        by_row = counts.sum(axis=1, keepdims=True)
        share, expected_share = np.where(off, counts / by_row, np.nan), np.where(off, expected / by_row, np.nan)
    z = np.where(np.isfinite(z), z, np.nan)
    p = np.where(expected >= FEWEST, _two_sided(z), np.nan)
    q = q_values(p)
    dims = ("expert", "runner_up")
    tables = {
        "n_tokens": (counts.astype(np.int64), "tokens"),
        "expected": (np.where(off, expected, np.nan), "tokens"),
        "share": (share, "share of the expert's tokens"),
        "expected_share": (expected_share, "share of the expert's tokens"),
        "lift": (lift, "log2 ratio"),
        "z": (z, "standard errors"),
        "p_value": (p, "probability"),
        "q_value": (q, "false-discovery rate"),
        "significant": (q <= fdr, "yes or no"),
    }
    experts = np.arange(n_experts)
    found = xr.Dataset(
        {name: (dims, values, {"unit": unit}) for name, (values, unit) in tables.items()},
        coords={"expert": experts, "runner_up": experts},
    )
    found.attrs.update(
        layer=layer, n_tokens=len(prompt_T), n_prompts=int(np.count_nonzero(np.bincount(prompt_T))), fdr=fdr
    )
    return found


def near_ties(
    trace: RoutingTrace, *, at_most: float = 0.01, by: Literal["task", "task_type", "phase"] | None = "task"
) -> pd.DataFrame:
    """How often the last selected expert and the first runner-up were as good as equal.

    Args:
        trace: a trace with scores of at least one runner-up.
        at_most: margin, in selection scores, up to which two experts count as equal.
        by: one row a group and layer; None takes all tokens together.

    Returns:
        ([by,] layer) · n_tokens, share, share_low, share_high · share of tokens · 0 to 1; the interval of 95 % is over
        prompts, NaN where they all say the same; NaN where no token has a runner-up.

    Raises:
        SelectionError: `by` names something else than what it may.
        TraceError: the trace holds counts only, or no scores, or no runner-up.
    """
    groups, group_of = token_groups(trace, by=by)
    n_prompts, n_layers = trace.n_prompts, trace.n_layers
    require_tokens(trace, for_what="a margin")
    top_k_L = np.array([facts.top_k for facts in trace.layer_facts])
    _require_runner_up(trace, int(top_k_L.min(initial=trace.n_ranks)))
    if trace.storage.rows("scores") is None:
        msg = "A margin needs selection scores, and this trace holds none. Record again, or import it with scores."
        raise TraceError(msg)
    # A prompt's tokens may be of several groups, as those read and those written are.
    shape = (len(groups) * n_prompts, n_layers)
    tied, seen = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for chunk in trace.chunks(fields=("scores",)):
        assert chunk.scores is not None
        group = group_of(chunk)
        key = group.astype(np.int64) * n_prompts + chunk.prompt
        for layer, top_k in enumerate(top_k_L):
            if top_k >= chunk.scores.shape[2]:
                continue
            pair = chunk.scores[:, layer, top_k - 1 : top_k + 1].astype(np.float32)
            margin = pair[:, 0] - pair[:, 1]
            there = np.isfinite(margin) & (group >= 0)
            seen[:, layer] += np.bincount(key[there], minlength=shape[0])
            tied[:, layer] += np.bincount(key[there & (margin <= at_most)], minlength=shape[0])
    rows = _shares(tied.reshape(len(groups), n_prompts, n_layers), seen.reshape(len(groups), n_prompts, n_layers))
    index = (
        pd.Index(trace.layers, name="layer")
        if by is None
        else pd.MultiIndex.from_product([groups, trace.layers], names=[by, "layer"])
    )
    found = pd.DataFrame(rows, index=index)
    found.attrs["unit"] = "share of tokens"
    return found


def _shares(tied: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Ratio of sums over prompts, with the interval of a ratio of sums; (group, prompt, layer) in, flat out."""
    n_tokens, n_tied = seen.sum(axis=1), tied.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = n_tied / n_tokens
        residual = tied - share[:, None, :] * seen
        n = (seen > 0).sum(axis=1)
        error = np.sqrt((residual**2).sum(axis=1) * n / np.maximum(n - 1, 1)) / n_tokens
    # Where all prompts say the same, their spread says nothing.
    error = np.where((n > 1) & (error > 0), error, np.nan)
    low, high = np.clip(share - 1.96 * error, 0, 1), np.clip(share + 1.96 * error, 0, 1)
    return {
        "n_tokens": n_tokens.ravel(),
        "share": share.ravel(),
        "share_low": low.ravel(),
        "share_high": high.ravel(),
    }


def _facts(trace: RoutingTrace, layer: str) -> LayerFacts:
    found = next((facts for facts in trace.layer_facts if facts.label == layer), None)
    if found is None:
        msg = f"The trace has the layers {', '.join(trace.layers)}, not {layer!r}. Name one of them."
        raise SelectionError(msg)
    return found


def _require_runner_up(trace: RoutingTrace, top_k: int) -> None:
    require_tokens(trace, for_what="a runner-up")
    if trace.n_ranks <= top_k:
        msg = (
            f"This trace stores {trace.n_ranks} ranks of which {top_k} are selected, so nobody came second. "
            "Record again with n_runners_up of 1 or more."
        )
        raise TraceError(msg)


def _choices(trace: RoutingTrace, layer: str, *, facts: LayerFacts) -> tuple[np.ndarray, np.ndarray]:
    """(T, K + 1) selected experts with the first runner-up, and (T) prompt, of the tokens that have both."""
    _require_runner_up(trace, facts.top_k)
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.expert_kernels import kept_ranks
    from analysis.kernels import frozen

    place = trace.layers.index(layer)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for chunk in trace.chunks(fields=("experts",)):
        assert chunk.experts is not None
        ranks, there = kept_ranks(frozen(chunk.experts), place, facts.top_k + 1, facts.n_experts)
        parts.append((ranks, chunk.prompt[there]))
    if not parts:
        return np.zeros((0, facts.top_k + 1), np.uint8), np.zeros(0, np.int32)
    ranks_TR, prompt_T = (np.concatenate(each) for each in zip(*parts, strict=True))
    return ranks_TR, prompt_T


def _seconds(ranks_TR: np.ndarray, prompt_T: np.ndarray, *, n_experts: int) -> tuple[np.ndarray, ...]:
    """Counts and sums of `count_seconds`."""
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_seconds

    if (prompt_T[1:] < prompt_T[:-1]).any():
        order = np.argsort(prompt_T, kind="stable")
        ranks_TR, prompt_T = ranks_TR[order], prompt_T[order]
    found: tuple[np.ndarray, ...] = count_seconds(frozen(ranks_TR), frozen(prompt_T.astype(np.int32)), n_experts)
    return found


def _independent(counts: np.ndarray) -> np.ndarray:
    """The table a_i b_j off the diagonal with the sums of rows and columns of `counts`."""
    off = ~np.eye(len(counts), dtype=bool)
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    fitted = off * np.ones_like(counts)
    for _ in range(_STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            fitted *= np.nan_to_num(rows / fitted.sum(axis=1), posinf=0.0)[:, None]
            fitted *= np.nan_to_num(columns / fitted.sum(axis=0), posinf=0.0)
        if np.abs(fitted.sum(axis=1) - rows).max(initial=0.0) <= _CLOSE * max(1.0, counts.sum()):
            break
    return fitted


def _spread(
    squares: np.ndarray, crossed: np.ndarray, alone: np.ndarray, *, counts: np.ndarray, expected: np.ndarray
) -> np.ndarray:
    """Standard error of each cell: root of the sum over prompts of (count − share that independence gives)²."""
    rows = counts.sum(axis=1)
    share = np.divide(expected, rows[:, None], out=np.zeros_like(expected), where=rows[:, None] > 0)
    total = squares - 2 * share * crossed + share**2 * alone[:, None]
    found: np.ndarray = np.sqrt(np.maximum(total, 0.0))
    return found


def _two_sided(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    found: np.ndarray = 2 * ndtr(-np.abs(z))
    return found
