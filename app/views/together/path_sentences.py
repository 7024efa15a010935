"""Along which paths tokens go and how long they stay, in sentences with their null or interval, texts escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from app.sentences import count, escaped, percent
from routing import expert_name

__all__ = ["of_common_paths", "of_context", "of_information", "of_path_entropy", "of_repetition", "of_words"]

Names = Mapping[str, Sequence[str]]

_AT_MOST = 0.05


def of_common_paths(rows: pd.DataFrame, *, layers: Sequence[str], unit: str) -> str:
    """The most common path, and how many of those shown layers of different texts would not make.

    Args:
        rows: experts, pieces, share with its ends, dealt_share, p_value; the most common first.
        layers: labels of the layers.
        unit: what a row of the trace is.
    """
    known = rows.dropna(subset=["p_value"])
    if known.empty:
        return f"No {unit} went through all of these layers."
    called = known[known["p_value"] <= _AT_MOST]
    if called.empty:
        return (
            f"Nothing holds up: none of the {count(len(known), 'path')} shown is more common than layers of different "
            "texts make some path."
        )
    best = called.iloc[0]
    path = " → ".join(
        escaped(expert_name(layer, int(each))) for layer, each in zip(layers, best["experts"].split(), strict=True)
    )
    words = f", most often “{escaped(best['pieces'])}”" if best["pieces"] else ""
    return (
        f"**{path}** is taken by {percent(best['share'])} of the {unit}s{_interval(best, 'share')}{words}; layers of "
        f"different texts make that {percent(best['dealt_share'])}. {len(called)} of the {count(len(known), 'path')} "
        f"shown hold up (p ≤ {called['p_value'].max():.3f}, over all paths together)."
    )


def of_path_entropy(rows: pd.DataFrame, *, unit: str) -> str:
    """Over how many paths tokens spread, against layers of different texts.

    Args:
        rows: window, entropy_nats, dealt_nats, p_value.
        unit: what a row of the trace is.
    """
    known = rows.dropna(subset=["entropy_nats", "p_value"])
    if known.empty:
        return "There are too few layers, or texts, for paths."
    called = known[known["p_value"] <= _AT_MOST]
    if called.empty:
        return (
            f"Nothing holds up: in none of {count(len(known), 'window')} {unit}s take fewer ways than layers of "
            "different texts make."
        )
    best = called.loc[(called["dealt_nats"] - called["entropy_nats"]).idxmax()]
    return (
        f"Through {escaped(str(best['window']))} {unit}s spread as over **{np.exp(best['entropy_nats']):,.0f}** evenly "
        f"used paths; layers of different texts give {np.exp(best['dealt_nats']):,.0f} (p = {best['p_value']:.3f}). "
        f"Paths are fewer than that in {len(called)} of {count(len(known), 'window')}."
    )


def of_information(rows: pd.DataFrame) -> str:
    """Which layers tell most about each other.

    Args:
        rows: layer, other, share, p_value; each pair at least once.
    """
    known = rows.dropna(subset=["share", "p_value"])
    # Each pair may stand there both ways round.
    pairs = pd.Series([frozenset(pair) for pair in zip(known["layer"], known["other"], strict=True)], dtype=object)
    known = known[~pairs.duplicated().to_numpy()]
    if known.empty:
        return "No two of these layers route the same tokens."
    called = known[known["p_value"] <= _AT_MOST]
    if called.empty:
        return (
            f"Nothing holds up: no layer tells more about another than layers of different texts do, of "
            f"{count(len(known), 'pair')}."
        )
    best, least = called.loc[called["share"].idxmax()], known.loc[known["share"].idxmin()]
    told = (
        f"{escaped(str(best['layer']))} and {escaped(str(best['other']))} tell most about each other: one settles "
        f"**{percent(best['share'])}** of the other's choice beyond what texts share (p = {best['p_value']:.3f})"
    )
    if len(known) > 1:
        told += (
            f", least {escaped(str(least['layer']))} and {escaped(str(least['other']))} ({_share(least['share'])}). "
            f"{len(called)} of {count(len(known), 'pair')} are beyond chance"
        )
    return f"{told}."


def of_repetition(rows: pd.DataFrame) -> str:
    """Whether neighbors in a text go to the same expert.

    Args:
        rows: layer, same_first with its ends, chance_text, chance_load, excess with its ends.
    """
    known = rows.dropna(subset=["same_first"])
    if known.empty:
        return "No tokens of this run follow each other, so there are no neighbors."
    called = known[known["excess_low"] > 0]
    if called.empty:
        return (
            f"Nothing holds up: in none of {count(len(known), 'layer')} do neighbors go to the same first expert more "
            "often than any two tokens of their text."
        )
    best = called.loc[called["excess"].idxmax()]
    return (
        f"In {escaped(str(best['layer']))} **{percent(best['same_first'])}** of neighbors go to the same first expert"
        f"{_interval(best, 'same_first')}; any two tokens of a text do in {percent(best['chance_text'])}, of the run "
        f"in {percent(best['chance_load'])}. Tokens stay beyond their text's chance in {len(called)} of "
        f"{count(len(known), 'layer')}."
    )


def of_context(rows: pd.DataFrame) -> str:
    """How much the token's id alone decides.

    Args:
        rows: layer, share with its ends, covered.
    """
    known = rows.dropna(subset=["share"])
    if known.empty:
        return "No token's id is known to occur in two texts, so nothing says what it decides."
    called = known[known["share_low"] > 0]
    if called.empty:
        return (
            f"Nothing holds up: in none of {count(len(known), 'layer')} does the same token in another text choose the "
            "same experts more often than any token."
        )
    best, least = called.loc[called["share"].idxmax()], known.loc[known["share"].idxmin()]
    told = (
        f"The token's id alone decides **{percent(best['share'])}** of what chance leaves in "
        f"{escaped(str(best['layer']))}{_interval(best, 'share')}"
    )
    if len(known) > 1:
        told += f" and {_share(least['share'])} in {escaped(str(least['layer']))}; 0 would be nothing, 1 everything"
    return f"{told}. {percent(best['covered'])} of the tokens have an id that several texts share."


def of_words(rows: pd.DataFrame, *, names: Names) -> str:
    """Which expert is most bound to certain words.

    Args:
        rows: layer, expert, specialization, rate, of layers whose ids decide something.
        names: of experts.
    """
    known = rows.dropna(subset=["specialization"])
    if known.empty:
        return "No layer's experts are bound to words beyond chance."
    best = known.loc[known["specialization"].idxmax()]
    name = expert_name(str(best["layer"]), int(best["expert"]), names=names)
    return (
        f"Most bound to words is **{escaped(name)}**: where a token chooses it, the same token in another text does in "
        f"{percent(best['specialization'])}, any token in {percent(best['rate'])}. An expert's number has no interval "
        "of its own; its layer's is above."
    )


def _interval(row: pd.Series, column: str) -> str:
    low, high = float(row[f"{column}_low"]), float(row[f"{column}_high"])
    if not np.isfinite(low):
        return ""
    return f" (95\N{NO-BREAK SPACE}%: {_share(low)} to {percent(high)})"


def _share(value: float) -> str:
    """A share that may lie below 0, where chance is taken off."""
    return percent(value) if value >= 0 else f"−{percent(-value)}"
