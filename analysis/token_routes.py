"""Tokens described by their routes, and how far two routes overlap.

Legend: T token, L layer, K selected rank, F feature: an expert of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.layouts import Matrix
from analysis.scan import require_tokens
from analysis.token_sample import token_sample
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["RouteValues", "described_tokens", "route_features", "token_overlap"]

RouteValues = Literal["weight", "selected"]


def token_overlap(
    trace: RoutingTrace, tokens: Sequence[int] | np.ndarray, *, values: RouteValues = "weight"
) -> xr.DataArray:
    """How far the routes of tokens overlap: 1 the same experts at the same weights in every layer, 0 none in common.

    o(t, t') = (1 / L) Σ_layers Σ_experts √(w w'), w the token's weights in the layer divided by their sum (the
    Bhattacharyya coefficient). With one expert a layer it is the share of layers in which both select the same one;
    with k at even weights, the mean share of common experts. A layer that routed only one of the two counts as no
    overlap. √(2 − 2o) is the Euclidean distance of `route_features`, so maps, principal components and the quality of
    maps all speak of the same thing.

    Args:
        trace: the trace.
        tokens: rows of the token axis.
        values: "weight" for the weights as applied, "selected" for even ones.

    Returns:
        (token, other) · share of the route · 0 to 1; NaN for a token that no layer routed.

    Raises:
        SelectionError: `values` is neither, or a row is none of the trace.
        TraceError: the trace holds counts only.

    References:
        Bhattacharyya 1943.
    """
    rows = np.asarray(tokens, dtype=np.int64)
    features = route_features(trace, rows, values=values)
    overlap = (features @ features.T).toarray().astype(float)
    unknown = np.flatnonzero(overlap.diagonal() == 0)
    overlap[unknown], overlap[:, unknown] = np.nan, np.nan
    coords = {"token": rows, "other": rows}
    about = {"unit": "share of the route", "values": values}
    return xr.DataArray(np.minimum(overlap, 1.0), dims=("token", "other"), coords=coords, attrs=about)


def route_features(trace: RoutingTrace, tokens: np.ndarray, *, values: RouteValues = "weight") -> Matrix:
    """Tokens as points whose products are their overlaps: √(weight share / layers), one feature an expert.

    Args:
        trace: the trace.
        tokens: (T,) rows of the token axis.
        values: "weight" or "selected", as in `token_overlap`.

    Returns:
        (token, feature) · root of a share · 0 to 1; a sparse array of scipy, rows of length 1, or 0 where no layer
        routed the token.

    Raises:
        SelectionError: `values` is neither, or a row is none of the trace.
        TraceError: the trace holds counts only.
    """
    # Slow to import, and not every view maps tokens.
    from scipy.sparse import csr_array

    require_tokens(trace, for_what="a map of tokens")
    if values not in ("weight", "selected"):
        msg = f"Routes are compared by weight or by what was selected, not by {values!r}. Correct `values`."
        raise SelectionError(msg)
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < trace.n_tokens:
        msg = f"The trace has tokens 0 to {trace.n_tokens - 1}, not all of those asked for. Correct the rows."
        raise SelectionError(msg)
    n_experts_L = np.array([facts.n_experts for facts in trace.layer_facts], dtype=np.int64)
    n_features = int(n_experts_L.sum())
    if not len(tokens) or trace.experts is None:
        return csr_array((len(tokens), n_features), dtype=np.float32)
    top_k_L = np.array([facts.top_k for facts in trace.layer_facts], dtype=np.int64)
    experts_TLK = trace.experts[tokens].values[:, :, : trace.top_k].astype(np.int64)
    there_TLK = (experts_TLK != trace.absent) & (np.arange(experts_TLK.shape[2]) < top_k_L[:, None])
    share_TLK = there_TLK / np.maximum(there_TLK.sum(axis=2, keepdims=True), 1)
    if values == "weight" and trace.weights is not None:
        weight_TLK = np.abs(trace.weights[tokens].values[:, :, : trace.top_k].astype(float))
        weight_TLK = np.where(there_TLK & np.isfinite(weight_TLK), weight_TLK, 0.0)
        total = weight_TLK.sum(axis=2, keepdims=True)
        # Where all weights vanish, what was selected is all there is to say.
        share_TLK = np.where(total > 0, weight_TLK / np.where(total > 0, total, 1.0), share_TLK)
    n_layers_T = there_TLK.any(axis=2).sum(axis=1)
    token, layer, rank = np.nonzero(there_TLK)
    first_L = np.concatenate([[0], np.cumsum(n_experts_L)[:-1]])
    root = np.sqrt(share_TLK[token, layer, rank] / n_layers_T[token])
    column = first_L[layer] + experts_TLK[token, layer, rank]
    return csr_array((root.astype(np.float32), (token, column)), shape=(len(tokens), n_features))


def described_tokens(trace: RoutingTrace, *, n_tokens: int, seed: int) -> pd.DataFrame:
    """A stratified sample of tokens with what a map of them is colored by.

    Returns:
        (row) · those of `token_sample`, then token_id, piece, nll, margin · nll in nats, margin in selection score,
        the mean over layers; NaN where unknown.
    """
    sample = token_sample(trace, n_tokens=n_tokens, seed=seed)
    rows = sample["token"].to_numpy()
    ids, nll = (np.zeros(0) if (held := trace.storage.rows(name)) is None else held.take(rows) for name in _READ)
    pieces = trace.vocabulary.reindex(ids).to_numpy(dtype=object) if len(trace.vocabulary) else None
    return sample.assign(
        token_id=ids.astype(np.int64) if len(ids) else -1,
        piece="" if pieces is None else [piece if isinstance(piece, str) else "" for piece in pieces],
        nll=nll.astype(float) if len(nll) else np.nan,
        margin=_margins(trace, rows),
    )


_READ = ("token_id", "nll")


def _margins(trace: RoutingTrace, rows: np.ndarray) -> np.ndarray:
    """(T,) margin of each token, the mean over its layers."""
    if trace.scores is None:
        return np.full(len(rows), np.nan)
    scores_TLR = trace.scores[rows].values.astype(float)
    margin_TL = np.full(scores_TLR.shape[:2], np.nan)
    for layer, facts in enumerate(trace.layer_facts):
        if facts.top_k < scores_TLR.shape[2]:
            margin_TL[:, layer] = scores_TLR[:, layer, : facts.top_k].min(axis=1) - scores_TLR[:, layer, facts.top_k]
    known = np.isfinite(margin_TL)
    n_known = known.sum(axis=1)
    return np.where(n_known > 0, np.where(known, margin_TL, 0.0).sum(axis=1) / np.maximum(n_known, 1), np.nan)
