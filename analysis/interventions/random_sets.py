"""Random sets of experts that a chosen set is held up to: the same layers, as many experts, about the same load."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import xarray as xr

from routing import SelectionError

__all__ = ["Expert", "load_of", "matched_sets", "require_known"]

Expert = tuple[str, int]
"""Label of a layer, and number of an expert."""

N_ENUMERATED = 4096
SHARE_KEPT = 0.5
"""Of the possible sets of a layer, the half whose load is nearest to the chosen one's is drawn from."""


def matched_sets(
    load: xr.DataArray, experts: Sequence[Expert], *, n_sets: int, seed: int = 0
) -> list[tuple[Expert, ...]]:
    """Distinct random sets with as many experts in each layer as the chosen set, of about its load, none of them in it.

    In each layer all sets of as many other experts are possible; drawn is from the half of them whose summed load is
    nearest to the chosen one's. Where the layers allow fewer than `n_sets` distinct sets, all of them are given.

    Args:
        load: (layer, expert) share of a layer's work; NaN where there is no expert.
        experts: the chosen set.
        n_sets: how many to draw.
        seed: of the draws.

    Raises:
        SelectionError: the set is empty or names experts that are not there, or a layer has too few others.
    """
    require_known(load, experts)
    rng = np.random.default_rng(seed)
    pools: dict[str, list[tuple[int, ...]]] = {}
    for layer in dict.fromkeys(layer for layer, _ in experts):
        pools[layer] = _pool(load.sel(layer=layer).to_numpy(), [e for at, e in experts if at == layer], layer, rng)
    n_possible = 1
    for pool in pools.values():
        n_possible *= len(pool)
    found: dict[tuple[Expert, ...], None] = {}
    while len(found) < min(n_sets, n_possible):
        drawn = [(layer, each) for layer, pool in pools.items() for each in pool[rng.integers(len(pool))]]
        found[tuple(drawn)] = None
    return list(found)


def load_of(load: xr.DataArray, experts: Sequence[Expert]) -> float:
    """Mean over the set's layers of the share of work that its experts do there.

    Returns:
        scalar · share of a layer's work · 0 to 1.
    """
    table = pd.DataFrame(
        [(layer, float(load.sel(layer=layer, expert=expert))) for layer, expert in experts], columns=["layer", "load"]
    )
    return float(table.groupby("layer")["load"].sum().mean())


def require_known(load: xr.DataArray, experts: Sequence[Expert]) -> None:
    """Refuse an empty set, and experts that no layer has.

    Raises:
        SelectionError: the set is empty or names experts that are not there.
    """
    if not experts:
        msg = "The set of experts is empty, so nothing would change. Name at least one expert."
        raise SelectionError(msg)
    layers = load["layer"].to_numpy().tolist()
    for layer, expert in experts:
        if layer not in layers or not 0 <= expert < load.sizes["expert"] or np.isnan(load.sel(layer=layer)[expert]):
            msg = f"There is no expert {expert} in {layer!r}; the layers are {', '.join(layers)}. Name one of theirs."
            raise SelectionError(msg)


def _pool(load_E: np.ndarray, chosen: list[int], layer: str, rng: np.random.Generator) -> list[tuple[int, ...]]:
    others = [expert for expert in np.flatnonzero(np.isfinite(load_E)).tolist() if expert not in chosen]
    size, wanted = len(chosen), float(load_E[chosen].sum())
    if len(others) < size:
        msg = (
            f"{layer} has {len(others)} experts besides the {size} chosen ones, too few for a random set of as many. "
            f"Choose {len(others)} at most in this layer."
        )
        raise SelectionError(msg)
    if comb(len(others), size) <= N_ENUMERATED:
        sets = list(combinations(others, size))
    else:
        drawn = {tuple(sorted(rng.choice(others, size, replace=False).tolist())) for _ in range(N_ENUMERATED)}
        sets = sorted(drawn)
    distance = [abs(float(load_E[list(each)].sum()) - wanted) for each in sets]
    order = np.argsort(distance, kind="stable")
    n_kept = max(min(len(sets), 2), round(SHARE_KEPT * len(sets)))
    return [sets[place] for place in order[:n_kept]]
