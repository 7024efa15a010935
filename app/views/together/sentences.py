"""Who works together and who follows whom, in sentences with their null or interval, in Markdown, texts escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from app.sentences import count, escaped, percent, times
from routing import expert_name

__all__ = [
    "of_guesses",
    "of_pair",
    "of_pairs",
    "of_single_choices",
    "of_steps",
    "of_strongest_pairs",
    "of_weights",
]

Names = Mapping[str, Sequence[str]]

_AT_MOST = 0.05
# What `coactivation` and `transitions` call significant: |lift| of half a doubling, and q.
_FDR = "by 1.4\N{NO-BREAK SPACE}× or more, false-discovery rate 5\N{NO-BREAK SPACE}%, over prompts"


def of_single_choices(layer: str, *, dense: bool) -> str:
    """Why a layer has no pairs."""
    which = "all of its experts" if dense else "a single expert"
    return f"Each token of {escaped(layer)} selects {which}, so there are no pairs to tell apart."


def of_pairs(rows: pd.DataFrame, *, layer: str, names: Names, unit: str) -> str:
    """Which pair of a layer goes together most, and how many hold up against the null.

    Args:
        rows: pairs of the layer, each once: expert, other, n_together, lift with its ends, p_value, significant.
        layer: label of the layer.
        names: of experts, of layers that have some.
        unit: what a row of the trace is, "token" or "prompt".
    """
    n_tested = int(rows["p_value"].notna().sum())
    if not n_tested:
        return (
            f"No pair of {escaped(layer)} can be tested: chance must give one 5 {unit}s, prompts must be several, and "
            "experts neither always nor never chosen."
        )
    called = rows[rows["significant"].astype(bool)]
    null = "what their loads and the choice of different experts give"
    if called.empty:
        return (
            f"Nothing holds up: none of the {count(n_tested, 'pair')} tested in {escaped(layer)} is chosen together "
            f"more or less often than {null} ({_FDR})."
        )
    more = called[called["lift"] > 0]
    held = f"{len(called):,} of {count(n_tested, 'pair')} tested hold up ({_FDR}): {len(more):,} more often"
    held += f" together, {len(called) - len(more):,} less."
    if more.empty:
        return f"{held} No pair of {escaped(layer)} seeks the other."
    best = more.loc[more["lift_low"].idxmax()]
    one, other = (_expert(layer, best[end], names) for end in ("expert", "other"))
    together = count(int(best["n_together"]), unit)
    return (
        f"**{one}** and **{other}** are the surest pair: together in {together}, {_factor(best)} {null}. {held} "
        "Gray pairs are within chance."
    )


def of_strongest_pairs(layers: pd.DataFrame) -> str:
    """In which layers pairs hold up.

    Args:
        layers: layer, n_tested, n_called, n_more.
    """
    tested = layers[layers["n_tested"] > 0]
    if tested.empty:
        return "No pair of these layers can be tested."
    n_called, n_tested = int(tested["n_called"].sum()), int(tested["n_tested"].sum())
    if not n_called:
        return (
            f"Nothing holds up in any of {count(len(tested), 'layer')}, of {count(n_tested, 'pair')} tested ({_FDR})."
        )
    most = tested.loc[(tested["n_called"] / tested["n_tested"]).idxmax()]
    told = f"{n_called:,} of {count(n_tested, 'pair')} of {count(len(tested), 'layer')} hold up ({_FDR})"
    if len(tested) > 1:
        told += f", most in {escaped(str(most['layer']))} ({most['n_called']} of {most['n_tested']})"
    return f"{told}. Shown are those whose intervals begin highest above chance."


def of_weights(row: pd.Series) -> str:
    """Whether experts that work together have weights alike; empty where the trace does not hold weights."""
    if not np.isfinite(row["rho"]):
        return ""
    numbers = f"Mantel's ρ = {row['rho']:.2f}, p = {row['rho_p_value']:.3f}"
    if row["rho_p_value"] <= _AT_MOST:
        return f" Experts that work together have weights more alike than others ({numbers})."
    return f" Experts that work together have weights no more alike than others ({numbers})."


def of_pair(row: pd.Series, *, layer: str, names: Names, unit: str, alike: pd.Series | None) -> str:
    """Everything known of one pair.

    Args:
        row: n_together, rate and other_rate (shares of each one's tokens), lift with its ends, p_value, significant.
        layer: label of the layer.
        names: of experts.
        unit: what a row of the trace is.
        alike: similarity, beats_chance and weight_similarity of `similar_experts`; None where nothing is known.
    """
    one, other = (_expert(layer, row[end], names) for end in ("expert", "other"))
    if not np.isfinite(row["lift"]):
        return f"Nothing is known of {one} and {other} together: one of them is always or never chosen."
    verdict = ", beyond chance" if row["significant"] else ", within chance"
    told = (
        f"**{one}** and **{other}** are chosen together by {count(int(row['n_together']), unit)}, "
        f"{percent(row['rate'])} of those of {one} and {percent(row['other_rate'])} of those of {other}: "
        f"{_factor(row)} what chance gives{verdict if np.isfinite(row['p_value']) else ', too few to test'}."
    )
    if alike is None:
        return told
    if np.isfinite(alike["similarity"]):
        sure = f"{'beyond' if alike['beats_chance'] else 'within'} chance among so many experts"
        told += f" Over tasks they are used alike at r = {alike['similarity']:.2f}, {sure}."
    if np.isfinite(alike["weight_similarity"]):
        told += f" The cosine of their weights is {alike['weight_similarity']:.2f}."
    return told


def of_steps(rows: pd.DataFrame, *, layer: str, next_layer: str, names: Names, unit: str) -> str:
    """Which expert follows which most, and how many pairs hold up.

    Args:
        rows: pairs of the step: expert, next_expert, rate, lift with its ends, p_value, significant.
        layer: label of the layer.
        next_layer: label of the next one.
        names: of experts.
        unit: what a row of the trace is.
    """
    n_tested = int(rows["p_value"].notna().sum())
    step = f"{escaped(layer)} → {escaped(next_layer)}"
    if not n_tested:
        return f"No pair of {step} can be tested: chance must give one 5 {unit}s, and prompts must be several."
    called = rows[rows["significant"].astype(bool)]
    if called.empty:
        return (
            f"Nothing holds up: none of {count(n_tested, 'pair')} tested in {step} follows more or less often than "
            f"with independent layers ({_FDR})."
        )
    more = called[called["lift"] > 0]
    held = f"{len(called):,} of {count(n_tested, 'pair')} tested hold up ({_FDR}), {len(more):,} of them as followers."
    if more.empty:
        return f"{held} They avoid each other."
    best = more.loc[more["lift_low"].idxmax()]
    return (
        f"Where **{_expert(layer, best['expert'], names)}** is first, "
        f"**{_expert(next_layer, best['next_expert'], names)}** is next for {percent(best['rate'])} of the {unit}s: "
        f"{_factor(best)} what independent layers give. {held} "
        "Gray pairs are within chance."
    )


def of_guesses(rows: pd.DataFrame, *, guesses: int) -> str:
    """Whether this layer's expert tells the next one's, on prompts not seen.

    Args:
        rows: step, accuracy with its ends, always_same, chance, of one number of guesses.
        guesses: that number.
    """
    known = rows.dropna(subset=["accuracy"])
    if known.empty:
        return "Too few prompts to learn on one half and judge on the other."
    named = f"the {guesses} experts that most often followed" if guesses > 1 else "the expert that most often followed"
    gained = known[known["accuracy_low"] > known["always_same"]]
    if gained.empty:
        return (
            f"Nothing holds up: on prompts not seen, naming {named} hits no more often than always naming the busiest, "
            "in any step."
        )
    best = gained.loc[(gained["accuracy"] - gained["always_same"]).idxmax()]
    return (
        f"On prompts not seen, naming {named} hits **{percent(best['accuracy'])}** of the tokens in "
        f"{escaped(str(best['step']))}{_interval(best, 'accuracy')}; always naming the busiest would hit "
        f"{percent(best['always_same'])}, chance {percent(best['chance'])}. It gains in {len(gained)} of "
        f"{count(len(known), 'step')}."
    )


def _expert(layer: str, expert: float, names: Names) -> str:
    return escaped(expert_name(layer, int(expert), names=names))


def _factor(row: pd.Series) -> str:
    value, low, high = (float(2.0 ** row[f"lift{end}"]) for end in ("", "_low", "_high"))
    if not np.isfinite(low):
        return times(value)
    return f"{times(value)} (95\N{NO-BREAK SPACE}%: {times(low)} to {times(high)})"


def _interval(row: pd.Series, column: str) -> str:
    low, high = float(row[f"{column}_low"]), float(row[f"{column}_high"])
    return f" (95\N{NO-BREAK SPACE}%: {percent(low)} to {percent(high)})" if np.isfinite(low) else ""
