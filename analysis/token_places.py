"""All tokens on the principal components of a few thousand of them: a map of millions is a product of numbers away.

Legend: T token, F feature: an expert of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.layouts import Matrix, principal_components
from analysis.quality import MapQuality, map_quality
from analysis.scan import require_tokens
from analysis.token_routes import RouteValues, route_features
from analysis.token_sample import stratified_rows, token_sample
from routing.chunks import PHASES
from routing.trace import RoutingTrace

__all__ = ["TokenPlaces", "nearest_tokens", "token_places"]

N_FITTED = 16_000
_BLOCK = 65_536


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPlaces:
    """Where tokens lie.

    Attributes:
        points: (token) · token, x, y, prompt (row of the trace's prompts), position, phase (code), nll.
        explained_share: variance of the fitted tokens that the two components hold.
        n_fitted: tokens that the components come from.
        quality: how far the map may be believed, judged on those.
    """

    points: pd.DataFrame
    explained_share: float
    n_fitted: int
    quality: MapQuality


def token_places(
    trace: RoutingTrace,
    *,
    values: RouteValues = "weight",
    most_items: int = 1_000_000,
    n_fitted: int = N_FITTED,
    n_neighbors: int = 15,
    seed: int = 0,
) -> TokenPlaces:
    """Tokens on the first two principal components of their `route_features`.

    The components come from a stratified sample (`token_sample`), in which each task and phase counts the same; every
    token is then placed on them exactly. Of more tokens than `most_items` a stratified draw is placed.

    Args:
        trace: the trace.
        values: what describes tokens, as in `token_overlap`.
        most_items: most tokens to place.
        n_fitted: tokens that the components come from.
        n_neighbors: size of the neighborhoods that the quality is judged by.
        seed: of the sample and the draw.

    Returns:
        (token) · TokenPlaces without unit · any; tokens that no layer routed are left out.

    Raises:
        SelectionError: `values` is none of those allowed.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a map of tokens")
    fitted = token_sample(trace, n_tokens=n_fitted, seed=seed)["token"].to_numpy()
    features_TF = route_features(trace, fitted, values=values)
    routed = np.diff(features_TF.indptr) > 0
    features_TF = features_TF[routed]
    places_T2, explained = principal_components(features_TF, seed=seed)
    mean_F = np.asarray(features_TF.mean(axis=0), dtype=float).ravel() if len(places_T2) else np.zeros(0)
    axes_F2 = _axes(features_TF, places_T2, mean_F=mean_F)
    columns = _columns(trace, most_items=most_items, seed=seed)
    found = np.full((len(columns), 2), np.nan, dtype=np.float32)
    rows = columns["token"].to_numpy()
    for start, part_TF in _blocks(trace, rows, values=values):
        placed = part_TF @ axes_F2 - mean_F @ axes_F2
        placed[np.diff(part_TF.indptr) == 0] = np.nan
        found[start : start + len(placed)] = placed
    points = columns.assign(x=found[:, 0], y=found[:, 1])
    return TokenPlaces(
        points=points[np.isfinite(found[:, 0])].reset_index(drop=True),
        explained_share=explained,
        n_fitted=len(places_T2),
        quality=map_quality(features_TF, places_T2, n_neighbors=n_neighbors, seed=seed),
    )


def nearest_tokens(
    trace: RoutingTrace, *, token: int, n_nearest: int = 10, values: RouteValues = "weight"
) -> pd.DataFrame:
    """The tokens of a whole trace whose routes are nearest to that of one token, and how far they are.

    Args:
        trace: the trace.
        token: row of the token axis.
        n_nearest: how many.
        values: what describes tokens, as in `token_overlap`.

    Returns:
        (neighbor) · token, distance · √(2 − 2 overlap), 0 the same route to √2 nothing in common, ascending;
        `attrs["median"]` is the median over all other tokens.

    Raises:
        SelectionError: `values` is none of those allowed, or the row is none of the trace.
        TraceError: the trace holds counts only.
    """
    route_F = np.asarray(route_features(trace, np.array([token]), values=values).todense(), dtype=float).ravel()
    distance_T = np.full(trace.n_tokens, np.nan)
    if route_F.any():
        for start, part_TF in _blocks(trace, np.arange(trace.n_tokens), values=values):
            overlap = np.minimum(part_TF @ route_F, 1.0)
            apart = np.sqrt(np.maximum(2 - 2 * overlap, 0.0))
            apart[np.diff(part_TF.indptr) == 0] = np.nan
            distance_T[start : start + len(apart)] = apart
    distance_T[token] = np.nan
    known = np.flatnonzero(np.isfinite(distance_T))
    nearest = known[np.argsort(distance_T[known], kind="stable")[:n_nearest]]
    table = pd.DataFrame({"token": nearest, "distance": distance_T[nearest]})
    table.attrs["median"] = float(np.median(distance_T[known])) if len(known) else np.nan
    return table


def _axes(features_TF: Matrix, places_T2: np.ndarray, *, mean_F: np.ndarray) -> np.ndarray:
    """(F, 2) components, from what they made of the fitted tokens: Xᵀ (U S) = V S²."""
    strength = (places_T2**2).sum(axis=0)
    product: np.ndarray = features_TF.T @ places_T2 - np.outer(mean_F, places_T2.sum(axis=0))
    return product / np.where(strength > 0, strength, 1.0)


def _columns(trace: RoutingTrace, *, most_items: int, seed: int) -> pd.DataFrame:
    parts = []
    for chunk in trace.chunks(fields=()):
        parts.append(
            pd.DataFrame(
                {
                    "token": np.arange(chunk.start, chunk.stop, dtype=np.int32),
                    "prompt": chunk.prompt,
                    "position": chunk.position,
                    "phase": chunk.phase,
                    "nll": chunk.nll,
                    "stratum": chunk.task.astype(np.int32) * len(PHASES) + chunk.phase,
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    if len(table) > most_items:
        drawn, _ = stratified_rows(table["stratum"].to_numpy(), n_rows=most_items, seed=seed)
        table = table.iloc[drawn].reset_index(drop=True)
    return table.drop(columns="stratum")


def _blocks(trace: RoutingTrace, rows: np.ndarray, *, values: RouteValues) -> Iterator[tuple[int, Matrix]]:
    for start in range(0, len(rows), _BLOCK):
        yield start, route_features(trace, rows[start : start + _BLOCK], values=values)
