"""What the Together view shows, as tables: they may be made in a process of its own (`app.slow_answers`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from analysis import (
    coactivation,
    common_paths,
    context_independence,
    hierarchical_order,
    layer_information,
    mantel,
    next_layer_predictability,
    path_entropy,
    repetition,
    transitions,
)
from analysis.paths import path_windows, window_name
from routing import RoutingTrace

__all__ = [
    "both_ways",
    "common_tables",
    "pair_tables",
    "path_tables",
    "step_tables",
    "stay_tables",
    "table_of",
    "windows_of",
]

Tables = dict[str, pd.DataFrame]


def pair_tables(trace: RoutingTrace) -> Tables:
    """Pairs of experts of each layer.

    Returns:
        "pairs": layer, expert, other and the columns of `coactivation`, each pair once, with other_rate, the share of
        the other's tokens · "layers": layer, n_pairs,
        n_tested, n_called, n_more, rho, rho_p_value (likeness of the weights of experts that work together, NaN where
        the trace does not hold it) · "experts": layer, expert, place (those that work together beside each other).
    """
    found = coactivation(trace)
    weights = trace.vectors.get("expert_weight_similarity") if trace.vectors else None
    layers, experts, pairs = [], [], []
    for facts in trace.layer_facts:
        there = slice(0, facts.n_experts)
        part = found.sel(layer=facts.label).isel(expert=there, other=there)
        lift, called, tested = (part[name].to_numpy() for name in ("lift", "significant", "p_value"))
        upper = np.triu(np.ones(lift.shape, bool), 1)
        alike = None
        if weights is not None and facts.label in weights["layer"].values.astype(str):
            alike = mantel(lift, weights.sel(layer=facts.label).to_numpy()[there, there])
        layers.append(
            {
                "layer": facts.label,
                "n_pairs": int(upper.sum()),
                "n_tested": int((np.isfinite(tested) & upper).sum()),
                "n_called": int((called & upper).sum()),
                "n_more": int((called & (lift > 0) & upper).sum()),
                "rho": np.nan if alike is None else alike.rho,
                "rho_p_value": np.nan if alike is None else alike.p_value,
            }
        )
        places = _likes_together(lift, called)
        experts += [{"layer": facts.label, "expert": e, "place": int(place)} for e, place in enumerate(places)]
        part = part.assign(other_rate=(("expert", "other"), part["rate"].to_numpy().T))
        rows = _rows(part.reset_coords(drop=True), layer=facts.label)
        pairs.append(rows[rows["expert"] < rows["other"]])
    return {"pairs": _joined(pairs), "layers": pd.DataFrame(layers), "experts": pd.DataFrame(experts)}


def step_tables(trace: RoutingTrace) -> Tables:
    """What follows what in the next layer, and whether it can be guessed.

    Returns:
        "pairs": step, expert, next_expert and the columns of `transitions` · "steps": step, layer, next_layer,
        n_tested, n_called, n_more · "experts", "next_experts": step, expert, place · "guesses": the rows of
        `next_layer_predictability`, none for a single prompt.
    """
    found = transitions(trace)
    n_experts = {facts.label: facts.n_experts for facts in trace.layer_facts}
    steps, before, after, pairs = [], [], [], []
    for number, step in enumerate(found["step"].values.astype(str)):
        layer, next_layer = str(found["layer"].values[number]), str(found["next_layer"].values[number])
        part = found.isel(
            step=number, expert=slice(0, n_experts[layer]), next_expert=slice(0, n_experts[next_layer])
        ).reset_coords(drop=True)
        lift, called, tested = (part[name].to_numpy() for name in ("lift", "significant", "p_value"))
        steps.append(
            {
                "step": step,
                "layer": layer,
                "next_layer": next_layer,
                "n_tested": int(np.isfinite(tested).sum()),
                "n_called": int(called.sum()),
                "n_more": int((called & (lift > 0)).sum()),
            }
        )
        rows, columns = _staircase(lift, called)
        before += [{"step": step, "expert": e, "place": int(place)} for e, place in enumerate(rows)]
        after += [{"step": step, "expert": e, "place": int(place)} for e, place in enumerate(columns)]
        pairs.append(_rows(part, step=step))
    guesses = next_layer_predictability(trace).reset_index() if trace.n_prompts > 1 else pd.DataFrame()
    columns_of_steps = ["step", "layer", "next_layer", "n_tested", "n_called", "n_more"]
    places = ["step", "expert", "place"]
    return {
        "pairs": _joined(pairs),
        "steps": pd.DataFrame(steps, columns=columns_of_steps),
        "experts": pd.DataFrame(before, columns=places),
        "next_experts": pd.DataFrame(after, columns=places),
        "guesses": guesses,
    }


def path_tables(trace: RoutingTrace) -> Tables:
    """How much layers tell about each other, and how many ways tokens take.

    Returns:
        "information": layer, other and every column of `layer_information` · "entropy": the rows of `path_entropy`.
    """
    return {
        "information": layer_information(trace).to_dataframe().reset_index(),
        "entropy": path_entropy(trace, window=_window(trace)).reset_index(),
    }


def windows_of(trace: RoutingTrace) -> dict[str, tuple[str, ...]]:
    """The layers of each path by its name: four that follow each other, or as many as the longest stack has."""
    return {
        window_name(trace, places): tuple(trace.layers[place] for place in places)
        for places in path_windows(trace, window=_window(trace))
    }


def common_tables(trace: RoutingTrace, *, layers: Sequence[str]) -> Tables:
    """The most common paths through some layers.

    Returns:
        "paths": the rows of `common_paths`.
    """
    return {"paths": common_paths(trace, layers=tuple(layers))}


def stay_tables(trace: RoutingTrace) -> Tables:
    """What neighbors in a text share, and what the token's id decides.

    Returns:
        "repetition": the rows of `repetition` · "layers": layer and the columns of `context_independence` by layer ·
        "experts": layer, expert, specialization, rate.
    """
    words = context_independence(trace)
    by_expert = words[["specialization", "rate"]].to_dataframe().reset_index()
    return {
        "repetition": repetition(trace).reset_index(),
        "layers": words.drop_vars(["specialization", "rate"]).drop_dims("expert").to_dataframe().reset_index(),
        "experts": by_expert,
    }


def table_of(rows: pd.DataFrame, *dims: str) -> xr.Dataset:
    """Rows as labelled tables along the columns that name them, for figures."""
    found = rows.set_index(list(dims)).to_xarray()
    if "significant" in found:
        # A pair of an expert with itself is no row, and nothing there.
        found["significant"] = found["significant"].isin([True])
    return found


def both_ways(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs that stand there once, the other way round as well."""
    turned = {"expert": "other", "other": "expert", "rate": "other_rate", "other_rate": "rate"}
    return pd.concat([pairs, pairs.rename(columns=turned)], ignore_index=True)


def _window(trace: RoutingTrace) -> int | None:
    stacks = [facts.stack for facts in trace.layer_facts]
    longest = max((stacks.count(stack) for stack in set(stacks)), default=0)
    return None if path_windows(trace) else max(2, longest)


def _rows(table: xr.Dataset, **named: str) -> pd.DataFrame:
    """Rows of a table of pairs; large models have millions, so in half the bytes."""
    rows = table.drop_vars("z").to_dataframe().reset_index()
    wide = rows.select_dtypes("float64").columns
    return rows.astype(dict.fromkeys(wide, np.float32)).assign(**named)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _strong(lift: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Lifts that hold up; 0 where nothing is known to be there."""
    found: np.ndarray = np.where(called & np.isfinite(lift), lift, 0.0)
    return found


def _likes_together(lift: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Place of each expert in an order in which those that work together are neighbors."""
    strong = _strong(lift, called)
    if not strong.any():
        return np.arange(len(lift))
    # An expert is most like itself, so that a pair of two alone is near, too.
    np.fill_diagonal(strong, max(1.0, float(strong.max())))
    return np.argsort(hierarchical_order(xr.DataArray(strong, dims=("expert", "other"))).order)


def _staircase(lift: np.ndarray, called: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of rows and columns in which rows of like successors are neighbors, and successors follow the rows."""
    strong = np.maximum(_strong(lift, called), 0.0)
    if not strong.any() or len(strong) < 2:
        return np.arange(lift.shape[0]), np.arange(lift.shape[1])
    order = hierarchical_order(xr.DataArray(strong, dims=("expert", "next_expert"))).order
    rows = np.argsort(order)
    weight = strong.sum(axis=0)
    middle = np.where(weight > 0, (strong * rows[:, None]).sum(axis=0) / np.where(weight > 0, weight, 1.0), np.inf)
    return rows, np.argsort(np.argsort(middle, kind="stable"), kind="stable")
