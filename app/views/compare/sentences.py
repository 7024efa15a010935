"""What two runs have in common and how their routing differs, in Markdown with every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from app.sentences import and_list, count, escaped, percent
from app.views.compare.pairing import Comparison, Kin
from routing import expert_name

__all__ = [
    "SHARED_FROM",
    "of_churn",
    "of_distances",
    "of_ground",
    "of_information",
    "of_information_alone",
    "of_kept",
    "of_numbers",
    "of_overlap",
    "of_picked",
    "of_use",
]

SHARED_FROM = 0.05
"""Largest p of `expert_numbering` at which numbers are taken to mean the same in two runs."""

Names = tuple[str, str]
"""What the earlier and the later run are called."""


def of_ground(found: Comparison, *, names: Names, n_layers: tuple[int, int], counts: bool) -> str:
    """What the two runs have in common, of this selection.

    Args:
        found: what can be compared.
        names: of the two runs.
        n_layers: layers of each, before they were narrowed.
        counts: whether one of them holds counts only.
    """
    one, other = (f"**{escaped(name)}**" for name in names)
    if found.over == "nothing":
        return (
            f"{one} and {other} share no prompt and no task of this selection, so nothing can be compared. Clear the "
            "selection, or choose another run."
        )
    if found.over == "tokens":
        told = f"{one} and {other} read {count(found.n_prompts[1], 'prompt')} as the very same tokens."
    else:
        why = "one of them holds counts only" if counts else "no prompt was read as the same tokens by both"
        told = (
            f"{one} and {other} cannot be compared token by token, for {why}; they share "
            f"{count(len(found.ground.tasks), 'task')}, with {found.n_prompts[0]:,} and {found.n_prompts[1]:,} prompts "
            "in this selection."
        )
    shared = len(found.ground.layers)
    if not shared:
        return (
            f"{told} Their layers differ in name, in number of experts or in how many are selected, so an expert of "
            "one has no counterpart in the other; what no expert's number enters can be compared."
        )
    if shared < max(n_layers):
        told += f" Of {n_layers[0]} and {n_layers[1]} layers, {shared} have the same name and size in both."
    return told


def of_numbers(kin: Kin, table: pd.DataFrame | None, *, names: Names) -> str:
    """Whether expert 3 of one run is expert 3 of the other.

    Args:
        kin: how the runs are related.
        table: of `expert_numbering`, where nothing says that they are.
        names: of the two runs.
    """
    if kin == "snapshots":
        return "Both are snapshots of one training, so an expert's number means the same in both."
    if kin == "model":
        return "Both were recorded from one model, so an expert's number means the same in both."
    if table is None:
        return ""
    p, over = float(table.attrs["p_value"]), str(table.attrs["over"])
    mean = float(table["agreement"].mean())
    if not np.isfinite(p):
        return "Nothing tells whether an expert's number means the same in both, for nothing varies."
    if p <= SHARED_FROM:
        return (
            f"An expert's number seems to mean the same in both: {over} agree on numbers (correlation {mean:.2f}) more "
            f"than with experts relabeled at random (p {p:.3f})."
        )
    return (
        f"**Nothing supports that an expert's number means the same in both:** {over} agree on numbers (correlation "
        f"{mean:.2f}) no more than with experts relabeled at random (p {p:.3f}), as trainings that went apart do. "
        "By itself this page shows what no number enters."
    )


def of_churn(table: pd.DataFrame, *, names: Names, unit: str) -> str:
    """How much of the routing changed, where most, and whether that is as much as between unrelated texts."""
    known = table.dropna(subset=["churn"])
    if known.empty:
        return "No layer routed a token of both runs."
    n_tokens = int(known["n_tokens"].max())
    if not known["any_changed"].any():
        return (
            f"**Nothing changed:** each of {count(n_tokens, unit)} selects the same experts in all "
            f"{count(len(known), 'layer')}."
        )
    most, least = str(known["churn"].idxmax()), str(known["churn"].idxmin())
    told = (
        f"Between {escaped(names[0])} and {escaped(names[1])} the churn is {percent(float(known['churn'].mean()))} "
        f"(mean over layers; between unrelated texts {percent(float(known['chance'].mean()))}), most in "
        f"**{escaped(most)}**: {percent(known.loc[most, 'churn'])}{_interval(known.loc[most], 'churn')}"
    )
    if most != least:
        told += (
            f", least in {escaped(least)}: {percent(known.loc[least, 'churn'])}{_interval(known.loc[least], 'churn')}"
        )
    same = known.index[~known["any_changed"].astype(bool)]
    lost = known.index[known["churn_high"].fillna(known["churn"]) >= known["chance"]]
    told += "."
    if len(same):
        told += f" Nothing changed in {and_list([escaped(str(each)) for each in same])}."
    if len(lost):
        told += f" In {and_list([escaped(str(each)) for each in lost])} nothing is kept beyond chance."
    closer = known.dropna(subset=["margin_changed", "margin_kept"])
    if len(closer) and (closer["margin_changed"] < closer["margin_kept"]).mean() > 0.5:
        told += (
            f" Close choices flipped first: a mean margin of {closer['margin_changed'].mean():.3f} where experts "
            f"changed, {closer['margin_kept'].mean():.3f} where not."
        )
    return told


def of_kept(table: pd.DataFrame, *, names: Names) -> str:
    """Which ranks had settled."""
    known = table.dropna(subset=["kept"])
    if known.empty:
        return "No layer routed a token of both runs."
    by_rank = known.groupby("rank")[["kept", "chance_kept"]].mean()
    first, last = by_rank.index[0], by_rank.index[-1]

    def told(rank: int) -> str:
        row = by_rank.loc[rank]
        return f"{percent(row['kept'])} at rank {rank} (by chance {percent(row['chance_kept'])})"

    text = f"Of the experts of {escaped(names[1])}, {escaped(names[0])} had selected {told(first)}"
    if last != first:
        text += f" and {told(last)}"
    text += ", as a mean over layers."
    if known["kept_low"].notna().any():
        beyond = int((known["kept_low"] > known["chance_kept"]).sum())
        text += (
            f" That is beyond chance in {beyond} of {len(known)} layers and ranks (95\N{NO-BREAK SPACE}% intervals)."
        )
    return text


def of_overlap(table: pd.DataFrame, *, names: Names) -> str:
    """How much weight went to the same experts, where all are always selected."""
    known = table.dropna(subset=["saturation"])
    if known.empty:
        return "No layer routed the same prompts in both runs."
    least = str(known["saturation"].idxmin())
    return (
        f"Every expert is always selected, so their weights are compared: {escaped(names[0])} and {escaped(names[1])} "
        f"give {percent(float(known['saturation'].mean()))} of it to the same experts (mean over layers; with another "
        f"row's weights {percent(float(known['chance'].mean()))}), least in **{escaped(least)}**: "
        f"{percent(known.loc[least, 'saturation'])}."
    )


def of_use(table: pd.DataFrame, *, names: Names, expert_names: Mapping[str, Sequence[str]]) -> str:
    """Which experts the same prompts use otherwise."""
    if table.empty:
        return "Nothing can be compared: no layer routed tokens of both runs."
    called = table[table["significant"]]
    bar = (
        f"q at most {table.attrs['fdr']:g} against runs of each prompt exchanged at random, and an effect of at least "
        f"{table.attrs['smallest']:g}"
    )
    if called.empty:
        return f"No expert of {len(table):,} is used otherwise beyond chance ({bar})."
    best = called.iloc[0]
    name = escaped(expert_name(str(best["layer"]), int(best["expert"]), names=expert_names))
    return (
        f"{len(called):,} of {count(len(table), 'expert')} {'is' if len(called) == 1 else 'are'} used otherwise "
        f"({bar}). Most of all **{name}**: {percent(float(best['rate_other']))} of the tokens chose it in "
        f"{escaped(names[0])}, "
        f"{percent(float(best['rate_one']))} in {escaped(names[1])} (difference "
        f"{_points(best['difference'])}, 95\N{NO-BREAK SPACE}%: {_points(best['difference_low'])} to "
        f"{_points(best['difference_high'])} points)."
    )


def of_picked(
    table: pd.DataFrame,
    picked: Sequence[tuple[str, int]],
    *,
    names: Names,
    expert_names: Mapping[str, Sequence[str]],
) -> str:
    """How the same prompts use one expert that the reader picked, in both runs; empty where none or several are."""
    if len(picked) != 1 or table.empty:
        return ""
    rows = table[(table["layer"] == picked[0][0]) & (table["expert"] == picked[0][1])]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    chance = f", q = {row['q_value']:.2g}" if np.isfinite(row["q_value"]) else ""
    return (
        f" **{escaped(expert_name(*picked[0], names=expert_names))}**, which is picked: {row['rate_other']:.1%} of the "
        f"tokens read in {escaped(names[0])}, {row['rate_one']:.1%} in {escaped(names[1])}{chance}."
    )


def of_distances(table: pd.DataFrame, *, names: Names) -> str:
    """Which layers are loaded otherwise."""
    known = table.dropna(subset=["js_bits"])
    if known.empty:
        return "No layer routed prompts of both runs."
    called = known[known["q_value"] <= 0.05]
    if called.empty:
        return (
            f"No layer of {len(known)} is loaded otherwise in {escaped(names[1])} than in {escaped(names[0])} beyond "
            "prompts dealt to the two at random (q at most 0.05)."
        )
    most = str(called["excess_bits"].idxmax())
    row = called.loc[most]
    return (
        f"{len(called)} of {count(len(known), 'layer')} are loaded otherwise in {escaped(names[1])} than in "
        f"{escaped(names[0])} (q at most 0.05), most **{escaped(most)}**: {row['js_bits']:.3f} bits, where prompts "
        f"dealt at random give up to {row['null_95']:.3f}; {percent(row['total_variation'])} of its assignments would "
        "have to move. Equal loads can still hide that every token changed."
    )


def of_information(table: pd.DataFrame, *, names: Names, untrained: bool) -> str:
    """Which of the runs tells tasks apart, and whether training had to do with it.

    Args:
        table: of `against_control`.
        names: of the two runs.
        untrained: whether the earlier run is of a model before any training.
    """
    known = table.dropna(subset=["share", "share_control"])
    if known.empty:
        return "There are too few tasks or prompts to say what experts tell about them."
    before, after = (f"**{escaped(name)}**" for name in names)
    told = (
        f"Of what there is to know about the task, an expert of {after} tells "
        f"{percent(max(0.0, float(known['share'].mean())))}, one of {before} "
        f"{percent(max(0.0, float(known['share_control'].mean())))} (mean over layers, beyond prompts dealt at random)."
    )
    n, n_less, n_more = len(known), int((known["gain_high"] < 0).sum()), int((known["gain_low"] > 0).sum())
    beyond = "95\N{NO-BREAK SPACE}% intervals of the difference leave out 0: filled"
    if n_less > n / 2:
        told += f" In {n_less} of {count(n, 'layer')} {before} tells more ({beyond})."
        if untrained:
            told += (
                " **The untrained router separates the tasks more than the trained one:** that tasks are told apart is "
                "here no sign of learning, for any network sends like words to like experts."
            )
        return told
    if n_more > n / 2:
        told += f" In {n_more} of {count(n, 'layer')} {after} tells more ({beyond})"
        return told + ("; training added that." if untrained else ".")
    if n_less or n_more:
        return told + f" In {n_more} of {count(n, 'layer')} {after} tells more, in {n_less} less ({beyond})."
    return told + " In no layer does the 95\N{NO-BREAK SPACE}% interval of the difference leave out 0."


def of_information_alone(table: pd.DataFrame) -> str:
    """What experts of one run tell about the task, beside permuted prompts.

    Args:
        table: of `task_information`, layers that routed something.
    """
    if table.empty:
        return "There are too few tasks or prompts to say what experts tell about them."
    most = str(table["share"].idxmax())
    n_beyond = int((table["p_value"] <= 0.05).sum())
    return (
        f"Most in **{escaped(most)}**: {percent(max(0.0, float(table.loc[most, 'share'])))} of what there is to know "
        f"about the task; {n_beyond} of {count(len(table), 'layer')} beat permuted prompts (p at most 0.05)."
    )


def _interval(row: pd.Series, column: str) -> str:
    low, high = float(row[f"{column}_low"]), float(row[f"{column}_high"])
    return f" (95\N{NO-BREAK SPACE}%: {percent(low)} to {percent(high)})" if np.isfinite(low) else ""


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")
