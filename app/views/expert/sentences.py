"""What an expert's page says, in Markdown, with every text escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from app.sentences import and_list, count, escaped, percent, times
from routing import expert_name

__all__ = ["companions_reading", "run_reading", "similar_reading", "steps_reading", "types_reading"]


def types_reading(special: xr.Dataset, *, layer: str, expert: int, over: str) -> str:
    """Which tasks, or types of them, an expert serves more or less than others beyond chance.

    Args:
        special: of `specialization`.
        layer: label of the layer.
        expert: number of the expert.
        over: what its groups are called in the plural.
    """
    row = special.sel(layer=layer, expert=expert)
    # As arrays: a label looked up for each task of a long list takes as long as the rest of the page.
    groups, lift = row["group"].values, row["lift"].to_numpy()
    called = row["significant"].to_numpy().astype(bool) & ~np.isnan(lift)
    more: list[str] = []
    less: list[str] = []
    for place in np.argsort(-np.nan_to_num(lift, nan=-99.0)):
        if called[place]:
            named = f"{escaped(str(groups[place]))} ({times(float(np.exp2(lift[place])))})"
            (more if lift[place] > 0 else less).append(named)
    if not more and not less:
        return f"Beyond chance it serves no {over} more or less than the others."
    parts = [f"more {and_list(more, most=5)}"] if more else []
    parts += [f"less {and_list(less[::-1], most=5)}"] if less else []
    return f"By {over}, beyond chance, it serves {', '.join(parts)}, each against what prompts do on average."


def companions_reading(found: pd.DataFrame, *, name: str, what: str, where: str = "of its tokens") -> str:
    """How many companions, or substitutes, go beyond chance.

    Args:
        found: rows of share, lift, significant.
        name: of the expert.
        what: what they do, after "experts".
        where: what `share` is a share of.
    """
    called = found[found["significant"]]
    if found.empty:
        return f"Nothing is known of experts that {what} {escaped(name)}."
    if called.empty:
        return f"No expert {what} {escaped(name)} more than its own load makes it."
    best = called.iloc[0]
    return (
        f"{count(len(called), 'expert')} {what} {escaped(name)} more than chance; {escaped(best['name'])} most, in "
        f"{percent(float(best['share']))} {where} ({times(float(np.exp2(best['lift'])))} what chance gives)."
    )


def run_reading(table: pd.DataFrame, *, even: float) -> str:
    """Where in the run an expert worked most."""
    known = table.dropna(subset=["rate"])
    if known.empty:
        return "No token of this run was routed here."
    top, low = known.loc[known["rate"].idxmax()], known.loc[known["rate"].idxmin()]
    overall = float((known["rate"] * known["n_tokens"]).sum() / known["n_tokens"].sum())
    return (
        f"{percent(overall)} of the tokens choose it over the whole run (an even share is {percent(even)}): from "
        f"{percent(float(low['rate']))} at prompts {low['first_prompt']} to {low['last_prompt']} up to "
        f"{percent(float(top['rate']))} at prompts {top['first_prompt']} to {top['last_prompt']}. Prompts stand in the "
        "order in which they were recorded, so steps are tasks as a rule."
    )


def steps_reading(share: pd.Series, *, even: float) -> str:
    """How an expert's share of the work went over training."""
    first, last = share.iloc[0], share.iloc[-1]
    return (
        f"From {percent(float(first))} of its layer's work at step {share.index[0]:,} to {percent(float(last))} at "
        f"step {share.index[-1]:,}; an even share is {percent(even)}."
    )


def similar_reading(found: pd.DataFrame) -> str:
    """Which experts are used by the same tasks, and whether more than chance makes them."""
    if found.empty:
        return "Who is like it cannot be told: it was never chosen, or the run has fewer than three tasks."
    sure = found[found["beats_chance"]]
    best = (found if sure.empty else sure).iloc[0]
    name = escaped(expert_name(str(best["layer"]), int(best["expert"])))
    alike = f"{name} (r = {best['similarity']:.2f} over the tasks' lifts)"
    if not np.isfinite(found.attrs["null_99"]):
        return f"Most alike is {alike}; too few tasks have prompts enough to say whether that is chance."
    if sure.empty:
        return (
            f"Most alike is {alike}. Looked at on different prompts of each task, no expert is more alike than chance "
            f"makes one among so many (up to {found.attrs['null_99']:.2f})."
        )
    return (
        f"{count(len(sure), 'expert')} are used by the same tasks more than chance and shared prompts explain (r above "
        f"{found.attrs['null_99']:.2f} on different prompts of each task); most alike is **{name}** "
        f"(r = {best['similarity']:.2f}, on different prompts {best['apart']:.2f})."
    )
