"""What interventions say, in sentences: silent about what random interventions of the same kind do as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from app.sentences import count, escaped, percent
from app.views.causes.studies_shown import LEVEL, KnockOutStudy, Measure, harmful

__all__ = ["of_double", "of_knock_outs", "of_loads", "of_runner_up", "of_study"]

MORE_LOAD = 1.1
"""A set that does more than this times the work of each random set has no like."""


def of_study(study: KnockOutStudy) -> str:
    """What was done, in one line."""
    sizes = sorted({len(experts) for experts in study.sets.values()})
    size = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    expert = "expert" if sizes == [1] else "experts"
    return (
        f"{count(len(study.sets), 'set')} of {size} {expert} · {count(study.n_prompts, 'prompt')} · "
        f"{count(study.n_random, 'random set')} each"
    )


def of_knock_outs(
    table: pd.DataFrame, measure: Measure, *, serves: Mapping[str, str], called: Mapping[str, str]
) -> str:
    """Which groups need the experts, those first that a set was chosen for.

    Args:
        table: effects of the sets that are shown, one row a set and group.
        measure: what is told of.
        serves: the group that a set was chosen for.
        called: names of each set's experts.
    """
    groups = table[(table["group"] != "all") & table[measure.change].notna()]
    rows = groups.to_dict("records")
    n_random = int(groups["n_random"].max()) if len(groups) else 0
    if not n_random:
        return "No random sets were measured, so nothing says whether these experts matter more than others."
    found = [row for row in rows if harmful(row, measure)]
    if not found:
        return (
            f"**Nothing here harms more than random sets:** of {count(len(rows), 'effect')}, none is harm beyond that "
            f"of {count(n_random, 'random set')} of as many experts and like load, with an interval that leaves out 0. "
            "Other experts take over."
        )
    found.sort(key=lambda row: (serves.get(str(row["set"])) != row["group"], -abs(float(row[measure.change]))))
    # Of n sets the ranks with p at most LEVEL are so many of n + 1.
    ranks = 1 + groups["n_random"]
    expected = float((np.floor(LEVEL * ranks + 1e-9) / ranks).sum())
    verdict = (
        "which chance alone may give"
        if len(found) <= expected + 2 * np.sqrt(expected)
        else "more than chance alone gives"
    )
    first = _effect(found[0], measure, called=called)
    return (
        f"{first}. Of {count(len(rows), 'effect')} {len(found)} {'beats' if len(found) == 1 else 'beat'} "
        f"random sets, where chance gives about {expected:.1f}: {verdict}."
    )


def of_loads(study: KnockOutStudy, *, sets: Sequence[str], called: Mapping[str, str]) -> str:
    """A warning where a set does more work than every random set that it is held up to; else empty."""
    heavy = [name for name in sets if name in study.loads and study.loads[name][0] > study.loads[name][2] * MORE_LOAD]
    if not heavy:
        return ""
    name = max(heavy, key=lambda each: study.loads[each][0] / study.loads[each][2])
    own, least, most = study.loads[name]
    return (
        f" No sets of like load exist for {escaped(called[name])}: they do {percent(own)} of their layers' work, the "
        f"random sets {percent(least)} to {percent(most)}, so part of what they cost may be their load."
    )


def of_double(double: pd.DataFrame) -> str:
    """Which pairs of sets come apart both ways."""
    if double.empty:
        return "There are no two sets that were chosen for different groups, so nothing can come apart both ways."
    beyond = double[(double["p_value"] <= LEVEL) & (double["low"] > 0)]
    both = beyond[(beyond["a_on_a"] > beyond["a_on_b"]) & (beyond["b_on_b"] > beyond["b_on_a"])]
    parts = []
    for row in both.to_dict("records"):
        parts.append(
            f"**{escaped(str(row['a']))} and {escaped(str(row['b']))} come apart both ways**: each set harms its own "
            f"prompts more than the other's, {row['interaction']:+.3f} nats a token together (95\N{NO-BREAK SPACE}%: "
            f"{row['low']:+.3f} to {row['high']:+.3f}; p = {row['p_value']:.3f} among {int(row['n_random'])} pairs of "
            "random sets)"
        )
    for row in beyond.drop(index=both.index).to_dict("records"):
        parts.append(
            f"Between {escaped(str(row['a']))} and {escaped(str(row['b']))} the sets differ by "
            f"{row['interaction']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}; p = {row['p_value']:.3f}), but **one "
            "way only**: one of the two sets harms the other's prompts at least as much as its own"
        )
    if not parts:
        return (
            f"**No pair comes apart:** of {count(len(double), 'pair')} of sets, none harms its own prompts more than "
            "the other's beyond pairs of random sets, with an interval that leaves out 0."
        )
    return "; ".join(parts) + "."


def of_runner_up(choices: pd.DataFrame, layers: pd.DataFrame) -> str:
    """Whether the runner-up would have served as well."""
    better = float((choices["nll_change"] < 0).mean())
    worse = layers[layers["low"] > 0].sort_values("nll_change", ascending=False)
    gains = layers[layers["high"] < 0].sort_values("nll_change")
    begin = (
        f"Of {count(len(choices), 'decision')}, the runner-up would have made the next token likelier in "
        f"{percent(better)}"
    )
    if worse.empty and gains.empty:
        return f"{begin}; in no layer does its cost differ from 0 beyond the prompts that were drawn."
    parts = []
    for rows, words in ((worse, "costs"), (gains, "would gain")):
        if len(rows):
            row = rows.iloc[0]
            others = f", the most of {len(rows)} layers" if len(rows) > 1 else ""
            parts.append(
                f"in **{escaped(str(row['layer']))}** it {words} {abs(row['nll_change']):.3f} nats "
                f"(95\N{NO-BREAK SPACE}%: {row['low']:+.3f} to {row['high']:+.3f}){others}"
            )
    asked = f" Each of {len(layers)} layers has its own interval: by chance one in twenty lies beside 0."
    return f"{begin}; {' and '.join(parts)}.{asked}"


def _effect(row: Mapping[str, object], measure: Measure, *, called: Mapping[str, str]) -> str:
    def number(name: str) -> float:
        return float(str(row.get(name, "nan")))

    interval = (
        f"95\N{NO-BREAK SPACE}%: {number(measure.low):+.3f} to {number(measure.high):+.3f}; "
        if np.isfinite(number(measure.low))
        else ""
    )
    unit = "nats a token" if measure.name == "loss" else "of the score"
    spread = (
        f" ({number(measure.random + '_low'):+.3f} to {number(measure.random + '_high'):+.3f})"
        if np.isfinite(number(measure.random + "_low"))
        else ""
    )
    return (
        f"Without {escaped(called[str(row['set'])])}, **{escaped(str(row['group']))}** loses "
        f"{abs(number(measure.change)):.3f} {unit} ({interval}random sets "
        f"{number(measure.random + '_mean'):+.3f}{spread})"
    )
