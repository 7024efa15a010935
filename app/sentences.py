"""The sentence of reading under each picture: what the data say, in words that follow them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.experts import ExpertProfile
from analysis.health import CHANCE
from routing import expert_name

__all__ = [
    "and_list",
    "chance",
    "count",
    "escaped",
    "of_balance",
    "of_comparison",
    "of_drivers",
    "of_idle",
    "of_profile",
    "of_scores",
    "of_training",
    "part_of",
    "percent",
    "size",
    "spoken",
    "times",
    "training_reference",
]

_MARKUP = "\\`*_{}[]()#+-.!:<>~|$&"


def escaped(text: str) -> str:
    """A text for Markdown, shown as it is however it is spelled."""
    return "".join(f"\\{character}" if character in _MARKUP else character for character in text)


def spoken(markdown: str) -> str:
    """A sentence without its markup, for those who hear it."""
    return re.sub(r"\\(.)", r"\1", markdown.replace("**", ""))


def percent(share: float) -> str:
    """A share as a percentage with the digits that matter."""
    if not np.isfinite(share):
        return "unknown"
    digits = 0 if share >= 0.1 or share == 0 else 1 if share >= 0.01 else 2
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def times(factor: float) -> str:
    """A factor as it is read aloud: 7.5 ×."""
    digits = 1 if factor >= 0.95 else 2
    return f"{factor:.{digits}f}\N{NO-BREAK SPACE}×"


def size(ratio: float) -> str:
    """A ratio of two sizes of one kind: as a percentage, or as a factor from 2 on."""
    return times(ratio) if 2 <= ratio < np.inf else percent(ratio)


def part_of(ratio: float) -> str:
    """A ratio of two sizes, to stand before the second: 12 % of, 22.5 ×."""
    return size(ratio) if 2 <= ratio < np.inf else f"{size(ratio)} of"


def count(number: int, noun: str, *, plural: str | None = None) -> str:
    """A number with its noun: 1 layer, 2 layers."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def and_list(names: Sequence[str], *, most: int = 4) -> str:
    """Names as an enumeration: a, b and c; those beyond `most` are counted."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def of_balance(balance: pd.DataFrame, *, threshold: float) -> str:
    """What stands out of the balance of layers.

    Args:
        balance: of `load_balance`, index layer.
        threshold: largest max ÷ mean that is called even.
    """
    known = balance[np.isfinite(balance["max_over_mean"])]
    if known.empty:
        return "No layer routed a token of this selection."
    worst = known.loc[known["max_over_mean"].idxmax()]
    layer = str(known["max_over_mean"].idxmax())
    over = known.index[known["max_over_mean"] > threshold]
    factor, low, high = (float(worst[name]) for name in ("max_over_mean", "max_over_mean_low", "max_over_mean_high"))
    interval = f" (95 %: {low:.1f} to {high:.1f})" if np.isfinite(low) else ""
    name = escaped(expert_name(layer, int(worst["hottest"]), names=balance.attrs.get("expert_names")))
    if not len(over):
        return (
            f"All {len(known)} layers are even: the busiest expert, **{name}**, takes {times(factor)} "
            f"the mean load{interval}, below the threshold of {threshold:g}\N{NO-BREAK SPACE}×."
        )
    which = and_list([escaped(str(each)) for each in over])
    return (
        f"**{name}** is the busiest expert: {times(factor)} the mean load of its layer{interval}. "
        f"{count(len(over), 'layer')} of {len(known)} {'is' if len(over) == 1 else 'are'} above "
        f"{threshold:g}\N{NO-BREAK SPACE}×: {which}."
    )


def of_idle(idle: pd.DataFrame, *, n_experts: int) -> str:
    """How many experts never worked, and whether that is chance.

    Args:
        idle: of `idle_experts`.
        n_experts: how many experts the trace has in all its layers.
    """
    if idle.empty:
        return f"Every one of the {n_experts:,} experts was chosen at least once."
    # Of all experts asked at once, as `load_health` judges.
    chance = (idle["chance_idle_prompts"] * n_experts).clip(upper=1.0)
    surprising, most = int((chance <= CHANCE).sum()), percent(float(chance.max()))
    verdict = (
        "too many prompts passed for that to be chance"
        if surprising == len(idle)
        else f"for {surprising} of them too many prompts passed for that to be chance"
        if surprising
        else f"but with so few prompts chance leaves an expert idle with a probability of up to {most}"
    )
    return f"{count(len(idle), 'expert')} of {n_experts:,} {_was(len(idle))} never chosen; {verdict}."


def of_drivers(profile: ExpertProfile, *, layer: str, expert: int, unit: str = "token") -> str:
    """Which task brings an expert more than its share of tokens, or of what else a row of the trace is."""
    table = profile.by_task
    known = table[np.isfinite(table["share_of_expert"])]
    name = f"**{escaped(expert_name(layer, expert, names=table.attrs.get('expert_names')))}**"
    if known.empty:
        return f"{name} was not chosen by any {unit}."
    ratio = known["share_of_expert"] / known["share_of_tokens"]
    if float(ratio.max()) < 1.25:
        return f"No task drives {name}: each brings it about as much as its share of the {unit}s."
    # By how much it brings, as overload is told everywhere: the highest ratio is easily that of a small task.
    beyond = known["share_of_expert"] - known["share_of_tokens"]
    task = str(beyond[ratio >= 1.25].idxmax())
    row = known.loc[task]
    return (
        f"{escaped(task)} drives {name} most: {percent(row['share_of_expert'])} of its assignments come from "
        f"{percent(row['share_of_tokens'])} of the {unit}s, {times(float(ratio[task]))} its share."
    )


def of_profile(profile: ExpertProfile, *, layer: str, expert: int) -> str:
    """What one expert serves, and whether the best task stands clear of the rest."""
    table = profile.by_task.dropna(subset=["rate"])
    name = f"**{escaped(expert_name(layer, expert, names=table.attrs.get('expert_names')))}**"
    if table.empty or profile.overall_rate == 0:
        return f"{name} was not chosen by any token of this selection."
    best = table["rate"].idxmax()
    row = table.loc[best]
    interval = (
        f" (95 %: {percent(row['rate_low'])} to {percent(row['rate_high'])})" if np.isfinite(row["rate_low"]) else ""
    )
    clear = np.isfinite(row["rate_low"]) and row["rate_low"] > profile.overall_rate
    if table.attrs.get("measure") == "routed weight":
        uses, all_do = f"{percent(row['rate'])} of its weight goes to it", "of all weight"
    else:
        uses, all_do = f"{percent(row['rate'])} of its tokens choose it", "of all tokens"
    return (
        f"{name} serves {escaped(str(best))} most: {uses}{interval}, against {percent(profile.overall_rate)} {all_do}"
        + ("." if clear else "; the interval reaches what all tokens do, so this may be chance.")
    )


def of_scores(scores: pd.DataFrame) -> str:
    """How many tasks the model can do."""
    known = scores.dropna(subset=["score"])
    if known.empty:
        return "This run holds no scores: its prompts had no targets, or no answers were made."
    judged = known.dropna(subset=["baseline", "score_low"])
    clear = judged[judged["score_low"] > judged["baseline"]]
    best = str(known["score"].idxmax())
    text = f"Best at {escaped(best)} ({known.loc[best, 'score']:.2f})."
    if len(judged):
        text = (
            f"On {len(clear)} of {count(len(judged), 'task')} with a constant answer to beat, the model beats it "
            f"beyond its 95 % interval. {text}"
        )
    return text


def of_comparison(balance: pd.DataFrame, other: pd.DataFrame, *, name: str) -> str:
    """How the evenness of two runs differs.

    Args:
        balance: of this run.
        other: of the other run.
        name: what the other run is called.
    """
    shared = [layer for layer in balance.index if layer in other.index]
    if not shared:
        return f"{escaped(name)} has no layer in common with this run."
    here, there = (frame.loc[shared, "max_over_mean"] for frame in (balance, other))
    one, two = (frame.loc[shared] for frame in (balance, other))
    worse = int((two["max_over_mean_low"] > one["max_over_mean_high"]).sum())
    better = int((two["max_over_mean_high"] < one["max_over_mean_low"]).sum())
    return (
        f"Of {count(len(shared), 'layer')}, **{escaped(name)}** is clearly less even in {worse} and clearly more even "
        f"in {better} (95\N{NO-BREAK SPACE}% intervals apart). Its busiest expert takes "
        f"{times(float(there.max()))} the mean load ({escaped(str(there.idxmax()))}), this run's "
        f"{times(float(here.max()))} ({escaped(str(here.idxmax()))})."
    )


def of_training(table: pd.DataFrame, value: str) -> str:
    """What became of one number of the layers between the first and the last step.

    Args:
        table: step, layer and the columns of `over_training`, one row each.
        value: which column.
    """
    steps = sorted(int(step) for step in table["step"].unique())
    if table[value].isna().all():
        return "It cannot be told of this selection: too few tasks or prompts are left."
    by_step = {step: table[table["step"] == step].set_index("layer")[value] for step in steps}
    first, last = by_step[steps[0]], by_step[steps[-1]]
    if value == "saturation":
        before = by_step[steps[-2]] if len(steps) > 1 else first
        return (
            f"At step {steps[0]:,} a token already had {percent(float(first.mean()))} of its last experts, "
            f"at step {steps[max(0, len(steps) - 2)]:,} {percent(float(before.mean()))} (mean over layers)."
        )
    if value == "max_over_mean":
        worst = str(last.idxmax())
        return (
            f"The least even layer at the end is **{escaped(worst)}** at {times(float(last.max()))}; "
            f"it began at {times(float(first[worst]))}."
        )
    most = str(last.idxmax())
    return (
        f"**{escaped(most)}** tells most about the task in the end: {last[most]:.2f} nats above chance, "
        f"{first[most]:.2f} at step {steps[0]:,}."
    )


def training_reference(table: pd.DataFrame, name: str) -> tuple[float, str]:
    """The level to compare a curve of training with, and what to call it.

    Args:
        table: columns of `over_training`.
        name: "even", "zero", or a column of chance levels.
    """
    if name == "even":
        return 1.0, "even"
    if name == "zero":
        return 0.0, "chance"
    steps = table["step"]
    # The last step agrees with itself, so its own chance says nothing about the others.
    return float(table.loc[steps < steps.max(), name].mean()), "chance"


def chance(probability: float) -> str:
    """A probability for a table, however small."""
    return "below 1e-300" if probability == 0 else f"{probability:.2g}"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
