"""What a passage and a token's route say, in a sentence each; in Markdown, with every text escaped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from app.sentences import and_list, escaped, part_of, percent
from figures.pieces import shown_piece
from routing import expert_name

__all__ = ["adapters_reading", "change_reading", "group_reading", "passage_reading", "route_reading", "token_name"]

# How a piece of a passage is colored, and the word for it.
_LOWEST = {"margin": "closest call", "entropy": "most decided token", "nll": "easiest token"}
_HIGHEST = {"margin": "clearest choice", "entropy": "least decided token", "nll": "hardest token"}
# Of the weight of the selected experts. Below it the margin is small because both scores are.
_LITTLE = 0.05
_UNITS = {"margin": "", "entropy": " of ln(experts)", "nll": " nats"}


def token_name(tokens: pd.DataFrame, token: int) -> str:
    """A token as a sentence names it: its text, or what its sign stands for, and its number."""
    piece = shown_piece(str(tokens["piece"].iloc[token]))
    text = f"“{piece.text.strip()}”" if piece.name is None else f"a {piece.name}"
    return f"{escaped(text)} (token {token})"


def passage_reading(tokens: pd.DataFrame, experts: pd.DataFrame, *, layer: str, shade: str, n_experts: int) -> str:
    """The one thing to see in a colored passage.

    Args:
        tokens: a row a token, with piece and nll.
        experts: a row a token, with expert, margin, entropy.
        layer: label of the layer.
        shade: "expert", "margin", "entropy" or "nll".
        n_experts: that the layer has.

    Returns:
        one or two sentences.
    """
    first = experts["expert"].dropna()
    if first.empty:
        return f"{escaped(layer)} routed none of these {len(tokens)} tokens: it belongs to another stack of the model."
    counts = first.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if shade == "expert":
        name = escaped(expert_name(layer, int(counts.index[0])))
        return (
            f"**{name}** comes first for {counts.iloc[0]} of {len(first)} tokens "
            f"({percent(counts.iloc[0] / len(first))}; an even spread would give each {percent(1 / n_experts)}). "
            f"{len(counts)} of the layer's {n_experts} experts come first somewhere in this text."
        )
    values = (tokens if shade == "nll" else experts)[shade].reset_index(drop=True).dropna()
    if values.empty:
        return f"This run holds no {shade} for this text in {escaped(layer)}."
    low, high = int(values.idxmin()), int(values.idxmax())
    return (
        f"The {_HIGHEST[shade]} is {token_name(tokens, high)} at {values[high]:.3f}{_UNITS[shade]}, "
        f"the {_LOWEST[shade]} {token_name(tokens, low)} at {values[low]:.3f}; the median is {values.median():.3f}."
    )


def group_reading(groups: np.ndarray, *, layer: str, names: Sequence[str]) -> str:
    """Which clusters of experts a passage goes to, in one layer.

    Args:
        groups: (token) · group of the first expert, −1 where there is none.
        layer: label of the layer.
        names: of the groups.
    """
    there = groups[groups >= 0]
    if not len(there):
        return f"No token of this text goes to a cluster of experts in {escaped(layer)}."
    n_of = np.bincount(there, minlength=len(names))
    shares = [
        f"**{escaped(names[group])}** {percent(n_of[group] / len(there))}"
        for group in np.argsort(-n_of, kind="stable")[:3]
        if n_of[group]
    ]
    return (
        f"In {escaped(layer)} the first experts of this text belong to {and_list(shares)} of its tokens. Clusters are "
        "experts, of any layer, that serve the same tasks; the Tasks view shows and tests them."
    )


def change_reading(change: xr.DataArray, tokens: pd.DataFrame, *, layer: str, base: str) -> str:
    """Where two runs of the same tokens part.

    Args:
        change: (layer, token) · churn: 1 − experts that both selected over experts that either did.
        tokens: a row a token, with piece.
        layer: label of the layer that is looked at.
        base: name of the other run.
    """
    known = change.notnull()
    if not bool(known.any()):
        return (
            f"{escaped(base)} cannot be compared here: it does not hold this prompt with the same tokens, or its "
            "layers have other names, sizes or numbers of selected experts."
        )
    by_layer = change.mean("token", skipna=True).dropna("layer")
    here = change.sel(layer=layer)
    text = f"The mean churn of a token against {escaped(base)} is {percent(float(change.mean()))}"
    text += f", most in {escaped(str(by_layer.idxmax().item()))} ({percent(float(by_layer.max()))})"
    text += f" and least in {escaped(str(by_layer.idxmin().item()))} ({percent(float(by_layer.min()))})."
    if bool(here.notnull().any()):
        n_same = int((here == 0).sum())
        text += f" In {escaped(layer)}, {n_same} of {int(here.notnull().sum())} tokens keep all of theirs."
    n_left = len(tokens) - int(known.any("layer").sum())
    if n_left:
        text += f" {n_left} tokens are not compared: from the first that differs on, the two read different texts."
    return text


def route_reading(route: pd.DataFrame, *, name: str, usual: pd.DataFrame | None = None) -> str:
    """The one thing to see in a token's route: where it was decided, and where it hung by a thread.

    Args:
        route: rows of layer, rank, expert, selected, dropped, margin.
        name: of the token.
        usual: layer (index) × low, high: the middle half of all tokens' margins.

    Returns:
        one or two sentences.
    """
    if route.empty:
        return f"No layer routed {name}."
    margins = route.drop_duplicates("layer").set_index("layer")["margin"].dropna()
    if margins.empty:
        return f"This run holds no runners-up, so how close the choices for {name} were is unknown."
    layer = str(margins.idxmin())
    there = route[route["layer"] == layer]
    selected = there[there["selected"]]
    last = selected.nsmallest(1, "score").iloc[0]
    following = there.loc[~there["selected"], "expert"].iloc[0]
    before = f"E{last['expert']} was selected before E{following} by a margin of {margins.min():.4f}."
    sentence = f"For {name} {f'the closest call is in {escaped(layer)}: ' if len(margins) > 1 else ''}{before}"
    share = float(last["weight"]) / float(selected["weight"].sum() or np.nan)
    if share < _LITTLE:
        sentence += f" Little hangs on it: E{last['expert']} carries {percent(share)} of the weight there."
    if usual is not None:
        close = [each for each in margins.index if margins[each] < usual["low"].get(each, float("-inf"))]
        clear = [each for each in margins.index if margins[each] > usual["high"].get(each, float("inf"))]
        sentence += (
            f" The margin is below that of three quarters of all tokens in {_where(close)}, "
            f"and above that of three quarters in {_where(clear)}."
            if close or clear
            else " In every layer the margin is in the middle half of those of all tokens."
            if len(margins) > 1
            else " The margin is in the middle half of those of all tokens."
        )
    n_dropped = int((route["dropped"] == 1).sum())
    if n_dropped:
        sentence += f" {n_dropped} of its assignments were dropped because the expert was full."
    return sentence


def adapters_reading(adapters: pd.DataFrame) -> str:
    """Where a token's adapters added most.

    Args:
        adapters: site (index) · ratio, key.
    """
    known = adapters.dropna(subset=["ratio"])
    site = str(known["ratio"].idxmax())
    made_from = known.loc[site, "key"]
    of = f", made from {escaped(str(made_from))}" if made_from else ""
    return (
        f"The adapters add {part_of(float(known['ratio'].mean()))} the norm that they are added to on average, most "
        f"in {escaped(site)} ({part_of(float(known.loc[site, 'ratio']))} it{of})."
    )


def _where(layers: list[str]) -> str:
    return and_list([escaped(layer) for layer in layers]) if layers else "no layer"
