"""Sentences of the view Tasks on single experts: what stays under controls, and what they go with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from app.sentences import and_list, count, escaped, percent, times
from routing import expert_name

__all__ = [
    "DECIDED_BY_TASK",
    "expert_called",
    "is_known",
    "of_answers",
    "of_control_cells",
    "of_controls",
    "of_features",
    "of_held_fixed",
]

Names = Mapping[str, Sequence[str]] | None

DECIDED_BY_TASK = (
    "Chance cannot be judged here: there is a single task or prompt, or the router decides once a task, so that "
    "prompts repeat it."
)

_CONTROLS = {
    "same position": "comparing tokens at the same position",
    "same token": "comparing tokens of the same id",
    "no template": "leaving out the words of the templates",
    "equal budgets": "giving each prompt as many tokens",
}


def expert_called(layer: object, expert: object, names: Names) -> str:
    """An expert's name for Markdown."""
    return escaped(expert_name(str(layer), int(expert), names=names))  # type: ignore[call-overload]


def of_controls(shares: pd.DataFrame, *, large: float, tested: bool) -> str:
    """Which control takes most of the differences away.

    Args:
        shares: index control · n_cells, n_large, n_sure, large, sure (shares of the cells).
        large: difference from which on a cell counts.
        tested: whether chance was judged.
    """
    plain = shares.loc["as recorded"] if "as recorded" in shares.index else None
    if plain is None or not plain["n_cells"]:
        return "No cell of this selection holds a number."
    points = f"{100 * large:g} points"
    begin = f"{_share(float(plain['large']))} of {int(plain['n_cells']):,} cells differ by {points} or more as recorded"
    if tested:
        begin += f", {_share(float(plain['sure']))} beyond shuffled prompts"
    others = shares.drop(index="as recorded")
    others = others[others["n_cells"] > 0]
    if not plain["n_large"] or others.empty:
        return f"{begin}, so there is little for a control to take away."
    least = str(others["large"].idxmin())
    if others.loc[least, "large"] >= plain["large"]:
        return f"{begin}; no control takes any of that away."
    most = str(others["large"].idxmax())
    text = (
        f"{begin}; {_CONTROLS[least]} cuts that to **{_share(float(others.loc[least, 'large']))}**, so that much of "
        "what looks like the task is the token."
        if least == "same token" and others.loc[least, "large"] <= 0.5 * plain["large"]
        else f"{begin}; {_CONTROLS[least]} cuts that to **{_share(float(others.loc[least, 'large']))}**."
    )
    if others.loc[most, "large"] > plain["large"]:
        text += f" {_CONTROLS[most].capitalize()} raises it to {_share(float(others.loc[most, 'large']))}."
    return text


def of_control_cells(cells: pd.DataFrame, *, large: float, covered: float, budget: int, names: Names) -> str:
    """What stays of the differences between groups with these controls, and the clearest of it.

    Args:
        cells: group, layer, expert, difference, plain_difference, significant.
        large: difference from which on a cell counts.
        covered: share of the tokens that the controls left.
        budget: tokens of each prompt; 0 for all.
        names: names of the experts of a layer.
    """
    known = cells.dropna(subset=["difference", "plain_difference"])
    if known.empty:
        return "No cell of this selection holds a number."
    before, after = ((known[name].abs() >= large).mean() for name in ("plain_difference", "difference"))
    text = (
        f"With these controls, the cells with a difference of {100 * large:g} points or more go from "
        f"{_share(float(before))} to **{_share(float(after))}**"
    )
    text += f" ({_share(covered)} of the tokens are compared"
    text += f", {count(budget, 'token')} of each prompt at most)." if budget else ")."
    if not known["q_value"].notna().any():
        return f"{text} {DECIDED_BY_TASK}"
    sure = known[known["significant"].astype(bool)]
    if sure.empty:
        return f"{text} No cell is left beyond shuffled prompts (q ≤ 0.05), so all cells are gray."
    best = sure.loc[sure["difference"].abs().idxmax()]
    name = expert_called(best["layer"], best["expert"], names)
    return (
        f"{text} {len(sure):,} of {len(known):,} cells hold up beyond shuffled prompts (q ≤ 0.05); the others are "
        f"gray. The clearest: {escaped(str(best['group']))} and **{name}**, {100 * best['difference']:+.1f} points, "
        f"{100 * best['plain_difference']:+.1f} without controls."
    )


def of_features(strongest: pd.DataFrame, *, column: str, unit: str, names: Names) -> str:
    """Which features have an expert that goes with them beyond the best of all experts by chance.

    Args:
        strongest: one row a feature: feature, layer, expert, r, p_max, lift, limit.
        column: what the features are values of.
        unit: what was dealt at random: "task" or "prompt".
        names: names of the experts of a layer.
    """
    if strongest.empty:
        return f"Nothing can be said of {escaped(column)}: no value is shared by several {unit}s, and not by all."
    known = strongest.dropna(subset=["p_max"])
    if known.empty:
        return DECIDED_BY_TASK
    found = known[known["p_max"] <= 0.05].sort_values("r", key=np.abs, ascending=False)
    limits = known["limit"]
    reach = (
        f"{limits.min():.2f}" if limits.min() > limits.max() - 0.005 else f"{limits.min():.2f} to {limits.max():.2f}"
    )
    chance = f"the best of all experts reaches |r| = {reach} in one of twenty deals of the values to {unit}s"
    if found.empty:
        best = known.loc[known["r"].abs().idxmax()]
        name = expert_called(best["layer"], best["expert"], names)
        return (
            f"No expert goes with any of {count(len(known), 'feature')} of {escaped(column)} beyond chance: {chance}. "
            f"The nearest is {escaped(str(best['feature']))} with **{name}**, r = {best['r']:+.2f}, p = "
            f"{best['p_max']:.3f}."
        )
    told = [
        f"{escaped(str(row.feature))} with **{expert_called(row.layer, row.expert, names)}** (r = {row.r:+.2f}"
        + (
            f", {times(2**row.lift)} the rate of {'all tasks' if unit == 'task' else 'the others'}"
            if is_known(row.lift)
            else ""
        )
        + f", p = {row.p_max:.3f})"
        for row in found.itertuples()
    ]
    rest = len(known) - len(found)
    none = f" The other {count(rest, 'feature')} {'has' if rest == 1 else 'have'} none." if rest else ""
    return f"Beyond chance go together: {and_list(told, most=5)}.{none} By chance, {chance}."


def of_held_fixed(features: pd.DataFrame, *, held: str) -> str:
    """How much of each feature is left once something is held fixed.

    Args:
        features: one row a feature: feature, left (share of its spread), null_95.
        held: what is held fixed.
    """
    gone = [escaped(str(name)) for name in features.loc[~(features["left"] > 1e-6), "feature"]]
    some = features[features["left"] > 1e-6]
    text = f"With {escaped(held)} held fixed over tasks"
    if some.empty:
        return f"{text}, nothing is left of {and_list(gone, most=5)}: tasks that are alike in one are in the other."
    least, most = float(some["left"].min()), float(some["left"].max())
    share = percent(most) if most - least < 0.005 else f"{percent(least)} to {percent(most)}"
    none = f", and nothing of {and_list(gone, most=5)}" if gone else ""
    return f"{text}, {share} of the spread of a feature {'is' if len(some) == 1 else 'are'} left{none}."


def of_answers(table: pd.DataFrame, *, n_tasks: int, names: Names, picked: Sequence[tuple[str, int]] = ()) -> str:
    """Which experts are used more where the answer is right, within tasks; those that are picked are told first."""
    if table.empty:
        return "No task of this selection has both right and wrong answers, so nothing can be compared within tasks."
    n_right, n_wrong = int(table["n_one"].max()), int(table["n_other"].max())
    of = f"{n_right:,} right and {n_wrong:,} wrong answers of {count(n_tasks, 'task')}"
    if not table["q_value"].notna().any():
        return f"{of.capitalize()}. {DECIDED_BY_TASK}"
    called = table[table["significant"].astype(bool)]
    if called.empty:
        best = table.loc[table["q_value"].idxmin()]
        return (
            f"With {of}, no expert goes with being right beyond chance: the nearest, "
            f"**{expert_called(best['layer'], best['expert'], names)}**, has q = {best['q_value']:.2f} against scores "
            "dealt within tasks."
        )
    told = [
        f"**{expert_called(row.layer, row.expert, names)}** ({percent(row.rate_one)} of the tokens read where right, "
        f"{percent(row.rate_other)} where wrong; {100 * row.difference:+.1f} points [{100 * row.difference_low:.1f}, "
        f"{100 * row.difference_high:.1f}])"
        for row in sorted(called.itertuples(), key=lambda row: (row.layer, row.expert) not in picked)
    ]
    return (
        f"Within tasks, {count(len(called), 'expert')} of {len(table):,} {'goes' if len(called) == 1 else 'go'} with "
        f"being right or wrong beyond scores dealt within tasks (q ≤ 0.05): {and_list(told, most=3)}. "
        f"From {of}; what is used more is not thereby what makes the answer right."
    )


def is_known(number: object) -> bool:
    """Whether there is such a number."""
    return number is not None and bool(np.isfinite(float(number)))  # type: ignore[arg-type]


def _share(share: float) -> str:
    """A percentage with one digit: what is compared here often differs by less than a point."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
