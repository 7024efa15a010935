"""How sure the routers were: margins at the boundary of the selection, entropy of the scores.

Legend: T token, L layer, E expert, G group, H histogram bin, C code of a 16-bit float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd

from analysis.router_scores import has_known_scores, score_table
from analysis.scan import By, mapped_chunks, require_tokens, token_groups
from routing.chunks import Chunk
from routing.errors import SelectionError, TraceError
from routing.trace import RoutingTrace

__all__ = ["margins", "routing_entropy"]

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


def margins(trace: RoutingTrace, *, by: Literal["task", "task_type", "phase"] | None = "task") -> pd.DataFrame:
    """How far the last selected expert was ahead of the first runner-up, spread over tokens.

    Margin = least selection score of the selected − selection score of the first runner-up. Near 0, a little noise,
    another precision or another batch changes the choice. Negative where a router does not select by score alone,
    as those that choose groups of experts first. Quantiles are read from bins of 1.6 % width.

    Args:
        trace: the trace.
        by: one row a group and layer; None takes all tokens together.

    Returns:
        ([by,] layer) · n_tokens, mean, q05, q25, q50, q75, q95 · selection score; NaN where no token has a runner-up.

    Raises:
        SelectionError: `by` names something else than what it may.
        TraceError: the trace holds counts only, or no scores, or no runner-up.
    """
    require_tokens(trace, for_what="a margin")
    top_k_L = np.array([facts.top_k for facts in trace.layer_facts], dtype=np.int64)
    if trace.storage.rows("scores") is None or trace.n_ranks <= int(top_k_L.min(initial=trace.n_ranks)):
        msg = (
            f"A margin needs the score of a runner-up, and this trace stores {trace.n_ranks} ranks of which "
            f"{trace.top_k} are selected. Record again with n_runners_up of 1 or more."
        )
        raise TraceError(msg)
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.confidence_kernels import chunk_margins
    from analysis.kernels import frozen

    with np.errstate(invalid="ignore"):  # some codes are NaN of the kind that signals
        value_C = frozen(np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32))

    def of_chunk(chunk: Chunk) -> np.ndarray:
        assert chunk.scores is not None
        codes = chunk.scores.astype(np.float16, copy=False).view(np.uint16)
        found: np.ndarray = chunk_margins(frozen(codes), value_C, top_k_L)
        return found

    return _spread(trace, of_chunk, by=by, fields=("scores",), unit="selection score")


def routing_entropy(
    trace: RoutingTrace,
    *,
    by: Literal["task", "task_type", "phase"] | None = "task",
    of: Literal["scores", "weights"] = "scores",
) -> pd.DataFrame:
    """How undecided the routers were, spread over tokens: 0 one expert has it all, 1 all are alike.

    - of "scores": entropy of the router's scores over all experts, divided by ln(experts). Scores of a sigmoid are
      divided by their sum first. Needs logits, which are read at 16 bits.
    - of "weights": entropy of the applied weights of the selected experts, divided by ln(top-k): how evenly they
      share the work.

    Quantiles are read from bins of 1.6 % width.

    Args:
        trace: the trace.
        by: one row a group and layer; None takes all tokens together.
        of: what the entropy is of.

    Returns:
        ([by,] layer) · n_tokens, mean, q05, q25, q50, q75, q95 · share of ln(experts), or of ln(top-k) · 0 to 1; NaN
        for a layer of one expert (or top-1), or whose score function is not known.

    Raises:
        SelectionError: `by` or `of` names something else than what it may.
        TraceError: the trace holds counts only, or no logits or weights where they are needed.
    """
    require_tokens(trace, for_what="an entropy")
    if of == "weights":
        if trace.storage.rows("weights") is None:
            msg = "This trace holds no applied weights, of which an entropy is asked. Import or record it with them."
            raise TraceError(msg)
        return _spread(trace, _weight_entropies(trace), by=by, fields=("weights",), unit="share of ln(top-k)")
    if of != "scores":
        msg = f"There is an entropy of scores and one of weights, not of {of!r}. Correct `of`."
        raise SelectionError(msg)
    if trace.storage.rows("logits") is None:
        msg = (
            f"The entropy of scores needs logits, which a trace of level {trace.level!r} does not hold. "
            'Record again at level "full", or take of="weights".'
        )
        raise TraceError(msg)
    return _spread(trace, _score_entropies(trace), by=by, fields=("logits",), unit="share of ln(experts)")


def _score_entropies(trace: RoutingTrace) -> Callable[[Chunk], np.ndarray]:
    from analysis.confidence_kernels import chunk_entropies
    from analysis.kernels import frozen

    functions = sorted({facts.score_function for facts in trace.layer_facts if has_known_scores(facts)})
    table_L = np.array(
        [
            functions.index(facts.score_function) if facts.score_function in functions else -1
            for facts in trace.layer_facts
        ],
        dtype=np.int64,
    )
    n_experts_L = np.array([facts.n_experts for facts in trace.layer_facts], dtype=np.int64)
    codes_C = np.arange(1 << 16, dtype=np.uint32)
    with np.errstate(invalid="ignore"):  # some codes are NaN of the kind that signals
        values = {
            "half": codes_C.astype(np.uint16).view(np.float16).astype(float),
            "brain": (codes_C << 16).view(np.float32).astype(float),
        }
    tables = {}
    for name, values_C in values.items():
        pairs = [score_table(values_C, score_function=each) for each in functions] or [(values_C, values_C)]
        tables[name] = tuple(frozen(np.stack(each)) for each in zip(*pairs, strict=True))

    def of_chunk(chunk: Chunk) -> np.ndarray:
        assert chunk.logits is not None
        kind, codes = _codes(np.ascontiguousarray(chunk.logits))
        found: np.ndarray = chunk_entropies(frozen(codes), *tables[kind], table_L, n_experts_L)
        return found

    return of_chunk


def _codes(logits: np.ndarray) -> tuple[Literal["half", "brain"], np.ndarray]:
    """The logits as codes of 16 bits: those of bfloat16 if nothing is lost by that, else of float16."""
    if logits.dtype == np.float16:
        return "half", logits.view(np.uint16)
    bits = logits.astype(np.float32, copy=False).view(np.uint32)
    if not (bits & 0xFFFF).any():
        return "brain", (bits >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return "half", logits.astype(np.float16).view(np.uint16)


def _weight_entropies(trace: RoutingTrace) -> Callable[[Chunk], np.ndarray]:
    from analysis.confidence_kernels import chunk_entropies
    from analysis.kernels import frozen

    top_k_L = np.array([facts.top_k for facts in trace.layer_facts], dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):  # some codes are NaN of the kind that signals
        weight_C = np.maximum(np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(float), 0)
        product_C = np.where(weight_C == 0, 0, weight_C * np.log(weight_C))
    # A weight is its own score, so the tables of scores serve for weights too.
    tables = frozen(weight_C[None]), frozen(product_C[None])
    table_L = np.zeros(trace.n_layers, dtype=np.int64)

    def of_chunk(chunk: Chunk) -> np.ndarray:
        assert chunk.weights is not None
        codes = chunk.weights.astype(np.float16, copy=False).view(np.uint16)
        found: np.ndarray = chunk_entropies(frozen(codes), *tables, table_L, top_k_L)
        return found

    return of_chunk


def _spread(
    trace: RoutingTrace,
    of_chunk: Callable[[Chunk], np.ndarray],
    *,
    by: By | None,
    fields: tuple[str, ...],
    unit: str,
) -> pd.DataFrame:
    """Quantiles of a number that every token has in every layer."""
    from analysis.confidence_kernels import N_BINS, bin_middles, sketch
    from analysis.kernels import frozen

    if by == "prompt":
        msg = "Spreads are given by task, task_type or phase, not by 'prompt'. Read a prompt with `token_experts`."
        raise SelectionError(msg)
    groups, keys = token_groups(trace, by=by)

    def partial(chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
        found: tuple[np.ndarray, np.ndarray] = sketch(
            of_chunk(chunk), frozen(keys(chunk).astype(np.int32)), len(groups)
        )
        return found

    counts_GLH = np.zeros((len(groups), trace.n_layers, N_BINS), dtype=np.int64)
    sums_GL = np.zeros((len(groups), trace.n_layers))
    for counts, sums in mapped_chunks(trace, partial, fields=fields, n_tokens=16384):
        counts_GLH += counts
        sums_GL += sums
    n_GL = counts_GLH.sum(axis=-1)
    some_GL = n_GL > 0
    upto_GLH = counts_GLH.cumsum(axis=-1)
    middles = bin_middles()
    columns = {"n_tokens": n_GL.ravel(), "mean": np.where(some_GL, sums_GL / np.maximum(n_GL, 1), np.nan).ravel()}
    for name, quantile in QUANTILES.items():
        place = (upto_GLH < np.maximum(1, np.ceil(quantile * n_GL))[..., None]).sum(axis=-1)
        columns[name] = np.where(some_GL, middles[np.minimum(place, N_BINS - 1)], np.nan).ravel()
    layers = pd.Index(list(trace.layers), name="layer")
    index = pd.MultiIndex.from_product([groups, layers], names=[by, "layer"]) if by else layers
    frame = pd.DataFrame(columns, index=index)
    frame.attrs["unit"] = dict.fromkeys(["mean", *QUANTILES], unit) | {"n_tokens": "tokens"}
    return frame
