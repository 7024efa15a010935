"""Random sets of experts that a chosen set is held up to: the same layers, as many experts, about the same load."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import combinations
from math import comb, prod

import numpy as np
import pandas as pd
import xarray as xr

from routing import SelectionError

__all__ = ["Expert", "load_of", "matched_sets", "require_known"]

Expert = tuple[str, int]
"""Label of a layer, and number of an expert."""

N_ENUMERATED = 4096
SHARE_KEPT = 0.5
"""Of the possible sets of a layer, the half whose load is nearest to the chosen one's is drawn from, if enough."""


def matched_sets(
    load: xr.DataArray, experts: Sequence[Expert], *, n_sets: int, seed: int = 0
) -> list[tuple[Expert, ...]]:
    """Distinct random sets with as many experts in each layer as the chosen set, of about its load, none of them in it.

    In each layer all sets of as many other experts are possible; first those of the half are drawn whose summed load is
    nearest to the chosen one's, then the rest. Where the layers do not allow `n_sets`, as one expert of sixteen, or
    three layers of three experts each, do not, sets of other layers of the same stacks are added: of the nearest layers
    for a set that lies in one layer, else with as many experts in as many layers. What is still lacking does not exist:
    fewer are given. More sets begin with those that fewer were, so that a study can be enlarged.

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
    possible: dict[str, list[tuple[int, ...]]] = {}
    for layer in dict.fromkeys(layer for layer, _ in experts):
        chosen = [expert for at, expert in experts if at == layer]
        possible[layer] = _possible(load.sel(layer=layer).to_numpy(), chosen, layer, rng)
    near = {layer: sets[: max(min(len(sets), 2), round(SHARE_KEPT * len(sets)))] for layer, sets in possible.items()}
    found: dict[tuple[Expert, ...], None] = {}
    for pools in (near, possible):
        while len(found) < min(n_sets, prod(map(len, pools.values()))):
            drawn = [(layer, each) for layer, pool in pools.items() for each in pool[rng.integers(len(pool))]]
            found[tuple(drawn)] = None
    others = _from_neighbors if len(possible) == 1 else _from_other_layers
    for each in others(load, experts, n_sets=n_sets - len(found), known=found):
        found[each] = None
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


def _possible(load_E: np.ndarray, chosen: list[int], layer: str, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Sets of as many other experts of a layer, nearest in load first; a sample of them where there are many."""
    others = [expert for expert in np.flatnonzero(np.isfinite(load_E)).tolist() if expert not in chosen]
    size = len(chosen)
    if len(others) < size:
        msg = (
            f"{layer} has {len(others)} experts besides the {size} chosen ones, too few for a random set of as many. "
            f"Choose {len(others)} at most in this layer."
        )
        raise SelectionError(msg)
    return _nearest_in_load(load_E, others, size, wanted=float(load_E[chosen].sum()), rng=rng)


def _nearest_in_load(
    load_E: np.ndarray, others: list[int], size: int, *, wanted: float, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    if comb(len(others), size) <= N_ENUMERATED:
        sets = list(combinations(others, size))
    else:
        drawn = {tuple(sorted(rng.choice(others, size, replace=False).tolist())) for _ in range(N_ENUMERATED)}
        sets = sorted(drawn)
    distance = [abs(float(load_E[list(each)].sum()) - wanted) for each in sets]
    return [sets[place] for place in np.argsort(distance, kind="stable")]


def _from_neighbors(
    load: xr.DataArray,
    experts: Sequence[Expert],
    *,
    n_sets: int,
    known: Container[tuple[Expert, ...]],  # noqa: ARG001 (asked like `_from_other_layers`)
) -> list[tuple[Expert, ...]]:
    """Sets of as many experts of one other layer of the stack, the nearest layers first, then the nearest in load."""
    own, size = experts[0][0], len(experts)
    layers = [str(each) for each in load["layer"].to_numpy()]
    load_LE = load.transpose("layer", "expert").to_numpy()
    there_LE = np.isfinite(load_LE)
    place, wanted = layers.index(own), float(sum(load_LE[layers.index(own), expert] for _, expert in experts))
    others = [
        each
        for each in range(len(layers))
        if each != place and _stack(layers[each]) == _stack(own) and there_LE[each].sum() >= there_LE[place].sum()
    ]
    found: list[tuple[Expert, ...]] = []
    for each in sorted(others, key=lambda number: (abs(number - place), number)):
        if len(found) >= n_sets:
            break
        here = np.flatnonzero(there_LE[each]).tolist()
        rng = np.random.default_rng(each)
        sets = _nearest_in_load(load_LE[each], here, size, wanted=wanted, rng=rng)
        found += [tuple((layers[each], expert) for expert in one) for one in sets[: n_sets - len(found)]]
    return found


def _from_other_layers(
    load: xr.DataArray, experts: Sequence[Expert], *, n_sets: int, known: Container[tuple[Expert, ...]]
) -> list[tuple[Expert, ...]]:
    """Sets with as many experts in as many layers of each stack, wherever these are, those nearest in load first."""
    if n_sets <= 0:
        return []
    count_of = pd.Series([layer for layer, _ in experts]).value_counts()
    layers = [str(each) for each in load["layer"].to_numpy()]
    load_LE = load.transpose("layer", "expert").to_numpy()
    there_LE = np.isfinite(load_LE)
    row_of = {layer: row for row, layer in enumerate(layers)}
    wanted, n_layers_chosen = load_of(load, experts), len(count_of)
    n_there = dict(zip(layers, there_LE.sum(axis=1).tolist(), strict=True))
    fewest_left = min(n_there[layer] - int(count) for layer, count in count_of.items())
    free = {
        layer: [each for each in np.flatnonzero(row).tolist() if (layer, each) not in set(experts)]
        for layer, row in zip(layers, there_LE, strict=True)
    }
    stacks = [[each for each in layers if _stack(each) == stack] for stack in dict.fromkeys(map(_stack, layers))]
    # Drawn without regard to how many are wanted, so that more begin with those that fewer were.
    rng = np.random.default_rng(len(experts))
    found: dict[tuple[Expert, ...], float] = {}
    for _ in range(N_ENUMERATED):
        moved = [
            (layer, int(count))
            for here in stacks
            for layer, count in zip(here, rng.permutation([count_of.get(each, 0) for each in here]), strict=True)
            if count
        ]
        if any(count > len(free[layer]) or n_there[layer] - count < fewest_left for layer, count in moved):
            continue
        drawn = tuple(
            (layer, int(each))
            for layer, count in moved
            for each in sorted(rng.choice(free[layer], count, replace=False))
        )
        if drawn not in known:
            share = sum(load_LE[row_of[layer], expert] for layer, expert in drawn) / n_layers_chosen
            found[drawn] = abs(float(share) - wanted)
    order = sorted(found, key=lambda each: found[each])
    half = round(SHARE_KEPT * len(order))
    mixed = [*rng.permutation(half).tolist(), *range(half, len(order))]
    return [order[place] for place in mixed[:n_sets]]


def _stack(label: str) -> str:
    return label.rstrip("0123456789")
