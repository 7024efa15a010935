"""Where experts should live, in sentences with intervals, in Markdown with every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from app.sentences import and_list, count, escaped, percent, times
from routing import expert_name

__all__ = [
    "FEWEST_BATCHES",
    "MEASURES",
    "advised",
    "of_advice",
    "of_devices",
    "of_drops",
    "of_losers",
    "of_measure",
    "of_single_experts",
    "shown_name",
    "table_of",
]

# With fewer, all batches may agree by chance: 2 of 2⁶ ways.
FEWEST_BATCHES = 6
_SMALL = 0.05

MEASURES = {
    "slowdown_bound": ("Slowdown bound", "time of the slowest device ÷ even devices", False),
    "device_max_over_mean": ("Busiest device", "busiest device ÷ mean, over passes and layers", False),
    "worst_pass": ("Worst pass", "busiest device ÷ mean in the worst pass", False),
    "balancedness_sglang": ("Balancedness as SGLang logs it", "balancedness (SGLang)", True),
    "balancedness_vllm": ("Balancedness as vLLM logs it", "balancedness (vLLM)", True),
    "sends_per_token": ("Sends to other nodes", "nodes a token is sent to, a layer", False),
    "nodes_per_token": ("Nodes a token needs", "nodes of a token's experts, a layer", False),
    "leaving_share": ("Assignments that leave the node", "share of assignments on another node", False),
}


def advised(measures: pd.DataFrame) -> str | None:
    """The placement that saves most on prompts not seen, beyond its interval and beyond experts by lot.

    Args:
        measures: (placement, part) · as `placement_what_if` gives them.

    Returns:
        its name; None where none does, or there are too few batches to tell.
    """
    if measures.attrs["n_batches"] < FEWEST_BATCHES:
        return None
    judged = _judged(measures)
    by_lot = judged["saved_time"].get("random", 0.0)
    known = judged.drop(index=["linear", "random"], errors="ignore")
    good = known[(known["saved_time_low"] > 0) & (known["saved_time"] > by_lot)]
    return None if good.empty else str(good["saved_time"].idxmax())


def of_advice(measures: pd.DataFrame, *, n_devices: int, n_nodes: int, batch_size: int) -> str:
    """One sentence of advice that follows the data, or that nothing is gained.

    Args:
        measures: (placement, part) · as `placement_what_if` gives them.
        n_devices: devices.
        n_nodes: nodes.
        batch_size: prompts a batch.
    """
    judged = _judged(measures)
    where = f"With {count(n_devices, 'device')}" + (f" on {n_nodes} nodes" if n_nodes > 1 else "")
    others = judged.drop(index=["linear", "random"], errors="ignore")
    if not np.isfinite(judged.loc["linear", "slowdown_bound"]) or others.empty:
        return "No token of this selection was routed, so there is nothing to place."
    best = str(others["saved_time"].idxmax())
    row = others.loc[best]
    before, after = _bound(judged.loc["linear"]), _bound(row)
    if (n_batches := measures.attrs["n_batches"]) < FEWEST_BATCHES:
        batches = count(n_batches, "batch", plural="batches")
        return (
            f"{where}, the {_name(best)} map has a slowdown bound of {after} on unseen prompts, the linear one "
            f"{before}. But half of these prompts make {batches} of {batch_size}, too few to tell a gain from "
            "chance: choose smaller batches, or record more prompts."
        )
    if row["saved_time_low"] == 0 == row["saved_time_high"]:
        return (
            f"**Nothing is gained**: {where[0].lower()}{where[1:]} every map has the same loads, here a slowdown "
            "bound of "
            f"{before}, as where each device holds a single expert. Redundant slots, or fewer devices, leave a choice."
        )
    if (name := advised(measures)) is None:
        return (
            f"**Nothing is gained**: {where[0].lower()}{where[1:]}, no map is faster than the linear one beyond chance "
            f"on unseen prompts. The nearest, {_name(best)}, takes the slowdown bound from {before} to {after}: "
            f"{_saved(row, 'saved_time')} saved."
        )
    row, after = others.loc[name], _bound(others.loc[name])
    told = (
        f"{where}, the **{_name(name)}** map lowers the slowdown bound from {before} to **{after}** on unseen prompts, "
        f"{_saved(row, 'saved_time')} less"
    )
    told += ", perhaps too little to move experts for." if row["saved_time"] < _SMALL else "."
    if n_nodes > 1 and np.isfinite(row["saved_sends_low"]):
        told += f" {_of_sends(row, others)}"
    return told


def of_single_experts(bounds: pd.DataFrame, *, n_devices: int, names: Mapping[str, Sequence[str]]) -> str:
    """That an expert alone keeps a layer uneven wherever experts live, and what helps; empty where none surely does.

    Args:
        bounds: layer, and the columns of `expert_bound`.
        n_devices: devices.
        names: names of the experts of layers that have some.
    """
    least = bounds["bound_low"].where(bounds["bound_low"].notna(), bounds["bound"])
    over = bounds[least > 1].sort_values("bound", ascending=False, kind="stable")
    if over.empty:
        return ""
    row = over.iloc[0]
    name = escaped(expert_name(str(row["layer"]), int(row["expert"]), names=names))
    interval = (
        f" (95\N{NO-BREAK SPACE}%: {percent(row['share_low'])} to {percent(row['share_high'])})"
        if np.isfinite(row["share_low"])
        else ""
    )
    replicas = int(row["n_replicas"])
    each = f", {percent(row['share'] / replicas)} with each of its {replicas} replicas" if replicas > 1 else ""
    others = f" The same holds of {count(len(over) - 1, 'other layer')}." if len(over) > 1 else ""
    return (
        f"**{name} alone sets the bound of its layer**: it does {percent(row['share'])}{interval} of the work "
        f"there{each}, and an even share of {count(n_devices, 'device')} is {percent(1 / n_devices)}. So the busiest "
        f"device does at least {times(row['bound'])} the mean wherever experts live; what helps is "
        f"{count(int(row['n_needed']), 'replica')} of that expert, in redundant slots.{others}"
    )


def table_of(measures: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """What each placement does on prompts not seen, as text with intervals: a row a measure, a column a placement."""
    judged = _judged(measures)
    cells = {
        shown_name(str(placement)): [_value(row, name).replace("\\", "") for name in names]
        for placement, row in judged.iterrows()
    }
    return pd.DataFrame(cells, index=[MEASURES[name][0] for name in names])


def shown_name(name: str) -> str:
    """A placement as the page calls it, as plain text."""
    return {"coactivated": "co-activated", "random": "by lot"}.get(name, name)


def of_measure(measures: pd.DataFrame, measure: str) -> str:
    """How the placements compare in one measure, on prompts that they were not fitted to."""
    judged = _judged(measures)
    values = judged[measure].drop(index="random", errors="ignore").dropna()
    if values.empty:
        return "Nothing was routed."
    _, unit, more_is_better = MEASURES[measure]
    best = str(values.idxmax() if more_is_better else values.idxmin())
    told = f"{unit[0].upper()}{unit[1:]}: best with **{_name(best)}**, {_value(judged.loc[best], measure)}"
    told += f"; linear {_value(judged.loc['linear'], measure)}" if best != "linear" else ""
    if "random" in judged.index:
        told += f"; experts by lot {judged.loc['random', measure]:.2f}"
    fitted = measures.xs("fitted", level="part")
    luck = (float(fitted.loc[best, measure]) - float(judged.loc[best, measure])) * (1 if more_is_better else -1)
    if best != "linear" and luck > 0.005 * abs(float(judged.loc[best, measure])):
        told += f". On the prompts that it was fitted to it looks better, {fitted.loc[best, measure]:.2f}, as fits do"
    return told + "."


def of_devices(load: xr.DataArray, *, name: str) -> str:
    """Which device of which layer has most work under a placement.

    Args:
        load: (layer, device) · share of the layer's assignments.
        name: of the placement.
    """
    factor = load / load.mean("device")
    known = factor.max("device").to_series().dropna()
    if known.empty:
        return "Nothing was routed."
    layer = str(known.idxmax())
    device = int(np.nanargmax(factor.sel(layer=layer).to_numpy()))
    return (
        f"Over all unseen prompts, device {device} does {known.max():.2f} times the mean in {escaped(layer)}, the most "
        f"under {_name(name)}; the mean layer's busiest device does {known.mean():.2f} times."
    )


def of_drops(drops: xr.Dataset, *, factor: float) -> str:
    """Which layers lose assignments at a capacity factor, against an even router."""
    here = drops.sel(factor=factor)
    rate = here["drop_rate"].to_series().dropna()
    if rate.empty:
        return "No assignment of this selection was made in a pass that reads a prompt."
    layer = str(rate.idxmax())
    row = here.sel(layer=layer)
    even = float(row["even_router"])
    low, high = float(row["drop_rate_low"]), float(row["drop_rate_high"])
    interval = f" (95\N{NO-BREAK SPACE}%: {percent(low)} to {percent(high)})" if np.isfinite(low) else ""
    if rate.max() <= max(even, 0.001):
        return (
            f"At a capacity factor of {factor:g} no layer loses more than an even router would: {escaped(layer)} most, "
            f"{percent(float(rate.max()))}{interval}."
        )
    least = np.maximum(here["even_router"].to_series(), 0.01)
    over = [escaped(str(each)) for each in rate.index[(here["drop_rate_low"].to_series() > least)[rate.index]]]
    told = (
        f"At a capacity factor of {factor:g}, **{escaped(layer)}** loses most: {percent(float(rate.max()))} of its "
        f"assignments{interval}; an even router would lose {percent(even)}. "
    )
    if (lost := float(row["lost_tokens"])) > 0:
        told += f"{percent(lost)} of its tokens lose every expert. "
    if not over:
        return f"{told}No layer surely loses more than 1\N{NO-BREAK SPACE}%."
    lose = "loses" if len(over) == 1 else "lose"
    return (
        f"{told}{count(len(over), 'layer')} of {len(rate)} surely {lose} more than 1\N{NO-BREAK SPACE}%: "
        f"{and_list(over)}."
    )


def of_losers(parts: pd.DataFrame, *, what: str, layer: str, overall: float) -> str:
    """Who loses most of what a capacity drops, and for how many that is sure.

    Args:
        parts: by position or task, rate (share of its assignments dropped), low, high.
        what: "position" or "task".
        layer: where.
        overall: share of all assignments dropped there.
    """
    known = parts.dropna(subset="rate")
    if known.empty or not known["rate"].max() > 0:
        return f"Nobody loses anything in {escaped(layer)}."
    most, least = known["rate"].idxmax(), known["rate"].idxmin()
    called = (lambda each: f"position {each}") if what == "position" else escaped
    if len(known) == 1:
        return f"{called(str(most))} is all there is: {_share(known.loc[most])} of its assignments are dropped."
    text = (
        f"In {escaped(layer)}, **{called(str(most))}** loses most: {_share(known.loc[most])} of its assignments, "
        f"against {percent(overall)} of all; {called(str(least))} least, {_share(known.loc[least])}."
    )
    told = known.dropna(subset=["low", "high"])
    if told.empty:
        return text
    apart = int(((told["low"] > overall) | (told["high"] < overall)).sum())
    return (
        f"{text} {apart} of {count(len(told), what)} differ from all beyond their 95\N{NO-BREAK SPACE}% interval over "
        f"prompts; by chance one in twenty would."
    )


def _share(part: pd.Series) -> str:
    if not np.isfinite(part["low"]):
        return percent(float(part["rate"]))
    return f"{percent(float(part['rate']))} \\[{percent(float(part['low']))}, {percent(float(part['high']))}\\]"


def _judged(measures: pd.DataFrame) -> pd.DataFrame:
    return measures.xs("judged", level="part")


def _name(name: str) -> str:
    return escaped(shown_name(name))


def _bound(row: pd.Series) -> str:
    return _value(row, "slowdown_bound")


def _value(row: pd.Series, measure: str) -> str:
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    interval = f" \\[{low:.2f}, {high:.2f}\\]" if np.isfinite(low) else ""
    return f"{row[measure]:.2f}{interval}"


def _saved(row: pd.Series, measure: str) -> str:
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    interval = f" \\[{100 * low:.0f}, {100 * high:.0f}\\]" if np.isfinite(low) else ""
    return f"{100 * row[measure]:.0f}\N{NO-BREAK SPACE}%{interval}"


def _of_sends(row: pd.Series, others: pd.DataFrame) -> str:
    if row["saved_sends_high"] < 0:
        told = f"It sends tokens to {_saved(-row.rename(_swap), 'saved_sends')} more nodes than linear."
    elif row["saved_sends_low"] > 0:
        told = f"It also saves {_saved(row, 'saved_sends')} of the sends between nodes."
    else:
        told = "Sends between nodes stay as they are, within chance."
    thrifty = str(others["saved_sends"].idxmax())
    if thrifty != row.name and others.loc[thrifty, "saved_sends_low"] > max(row["saved_sends_high"], 0):
        told += f" {_name(thrifty).capitalize()} sends least: {_saved(others.loc[thrifty], 'saved_sends')} saved."
    return told


def _swap(name: str) -> str:
    """The ends of an interval change places with the sign."""
    if name.endswith("_low"):
        return f"{name[:-4]}_high"
    return f"{name[:-5]}_low" if name.endswith("_high") else name
