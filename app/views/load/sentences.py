"""What is wrong with the load, since when and by whose doing, in Markdown with every text escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd

from app.sentences import count, escaped, percent, times
from routing import expert_name

__all__ = [
    "of_all_verdicts",
    "of_convergence",
    "of_passes",
    "of_positions",
    "of_scales",
    "of_tasks",
    "of_tokens",
    "of_verdicts",
    "of_worst",
]

_SURE = 0.05
_LEVELS = {"act": "asks to act", "watch": "asks to be watched", "good": "is well", "unknown": "cannot be told"}
_PLURAL = {"act": "ask to act", "watch": "ask to be watched", "good": "are well", "unknown": "cannot be told"}


def of_verdicts(verdicts: pd.DataFrame) -> str:
    """How many checks ask for something.

    Args:
        verdicts: column level, as `load_health` orders them.
    """
    numbers = verdicts["level"].value_counts()
    told = [
        f"**{number}** {(_LEVELS if number == 1 else _PLURAL)[level]}"
        for level in _LEVELS
        if (number := int(numbers.get(level, 0)))
    ]
    return f"Of {count(len(verdicts), 'check')}, {', '.join(told)}."


def of_all_verdicts(verdicts: pd.DataFrame) -> str:
    """How many checks ask for something, and what each of them saw.

    Args:
        verdicts: columns level and sentence, as `load_health` orders them.
    """
    rows = verdicts[["level", "sentence"]].itertuples(index=False)
    return " ".join([of_verdicts(verdicts), *(f"**{level}:** {escaped(sentence)}" for level, sentence in rows)])


def of_worst(ranges: pd.DataFrame, *, order: str) -> str:
    """Whether passes are less even than chance and the run make them.

    Args:
        ranges: of one phase of `worst_passes`, index layer.
        order: how prompts were put into batches.
    """
    known = ranges[ranges["mean"].notna()]
    if known.empty:
        return "No pass of this selection routed a token."
    sure = known[(known["q_value"] <= _SURE) & (known["mean"] > known["shuffled_mean"])]
    layer = str((sure if len(sure) else known)["mean"].idxmax())
    row = known.loc[layer]
    interval = (
        f" (95\N{NO-BREAK SPACE}%: {row['mean_low']:.2f} to {row['mean_high']:.2f})"
        if np.isfinite(row["mean_low"])
        else ""
    )
    told = (
        f"In **{escaped(layer)}** the busiest expert of a pass does {times(float(row['mean']))} the mean on average"
        f"{interval} and {times(float(row['worst']))} in the worst of "
        f"{count(int(row['n_passes']), 'pass', plural='passes')}; "
        f"over the whole run {times(float(row['whole_run']))}."
    )
    if order == "shuffled":
        return f"{told} Prompts are mixed already; what is left is their number."
    if not np.isfinite(row["p_value"]):
        return f"{told} There is nothing to shuffle, so chance cannot be told."
    if sure.empty:
        return (
            f"{told} Batches of random prompts would be as uneven ({row['shuffled_mean']:.2f}, "
            f"q = {row['q_value']:.2f} over layers): no layer's batches are worse than chance."
        )
    return (
        f"{told} Batches of random prompts would be at {row['shuffled_mean']:.2f} (q = {row['q_value']:.3f} over "
        "layers); in "
        f"{count(len(sure), 'layer')} of {len(known)} mixing prompts would help."
    )


def of_passes(passes: pd.DataFrame, *, layer: str) -> str:
    """How many passes of a layer are less even than their tokens alone would be.

    Args:
        passes: of one layer of `pass_load`, index pass.
        layer: which layer.
    """
    known = passes[passes["max_over_mean"].notna()]
    if known.empty:
        return f"No pass routed a token in {escaped(layer)}."
    worst = known.loc[known["max_over_mean"].idxmax()]
    over = int((known["max_over_mean"] > 1.25 * known["load_alone"]).sum())
    return (
        f"Few tokens make a pass uneven by themselves, so read dots against the line. The worst pass of "
        f"{escaped(layer)}, {times(float(worst['max_over_mean']))}, had {count(int(worst['n_tokens']), 'token')}; as "
        "many "
        f"independent ones would give {worst['load_alone']:.2f}. {over:,} of {len(known):,} passes are more than a "
        "quarter "
        "above theirs. Click a pass to select its prompts."
    )


def of_positions(table: pd.DataFrame) -> str:
    """Where in the text load is least even.

    Args:
        table: position, layer, max_over_mean with _low and _high, even_router, n_tokens.
    """
    known = table[table["max_over_mean"].notna()]
    if known.empty:
        return "No token of this selection was routed."
    excess = (known["max_over_mean_low"] - known["even_router"]).where(
        known["max_over_mean_low"].notna(), known["max_over_mean"] - known["even_router"]
    )
    if not excess.max() > 0:
        return "At no position is a layer less even than as many tokens of an even router would be."
    row = known.loc[excess.idxmax()]
    interval = (
        f" (95\N{NO-BREAK SPACE}%: {row['max_over_mean_low']:.1f} to {row['max_over_mean_high']:.1f})"
        if np.isfinite(row["max_over_mean_low"])
        else ""
    )
    last = known[known["layer"] == row["layer"]].iloc[-1]
    told = (
        f"Least even is **{escaped(str(row['layer']))}** at position {row['position']}: its busiest expert does "
        f"{times(float(row['max_over_mean']))} the mean{interval}; as many tokens of an even router would show "
        f"{row['even_router']:.2f}."
    )
    if last["position"] != row["position"]:
        told += f" At position {last['position']} it does {times(float(last['max_over_mean']))}."
    return told


def of_scales(table: pd.DataFrame, *, batch_size: int) -> str:
    """Whether unevenness is that of single texts, of batches or of the run.

    Args:
        table: scale, layer, max_over_mean, load_alone, even_router.
        batch_size: prompts a batch.
    """
    means = table.groupby("scale", sort=False)[["max_over_mean", "load_alone", "even_router"]].mean()
    if means["max_over_mean"].isna().all():
        return "No token of this selection was routed."
    text, batch, run = (means.loc[scale] for scale in ("sequence", "batch", "run"))
    told = (
        f"Over layers, the busiest expert does on average {times(float(run['max_over_mean']))} the mean in the whole "
        "run, "
        f"{times(float(batch['max_over_mean']))} in a batch of {batch_size} and {times(float(text['max_over_mean']))} "
        "in "
        f"one text; with independent tokens it would be {batch['load_alone']:.2f} and {text['load_alone']:.2f}."
    )
    if text["max_over_mean"] > 1.1 * text["load_alone"]:
        return f"{told} Texts bring work of their own kind, which a larger batch evens out."
    return f"{told} Texts are no less even than so few tokens must be."


def of_tasks(table: pd.DataFrame, *, layer: str, names: dict | None, factor: float, threshold: float) -> str:
    """Which task causes the overload of a layer's busiest expert.

    Args:
        table: one layer of `overload_tasks`, index task.
        layer: which layer.
        names: names of the experts of layers that have some.
        factor: what the expert does, times the mean.
        threshold: from where on that is called uneven.
    """
    known = table[table["contribution"].notna()]
    if known.empty:
        return f"{escaped(layer)} is perfectly even, so nobody causes anything."
    name = f"**{escaped(expert_name(layer, int(known['expert'].iloc[0]), names=names))}**"
    begin = f"{name} does {times(factor)} the mean of its layer"
    if factor <= threshold:
        return (
            f"{begin}, not above the {threshold:g}\N{NO-BREAK SPACE}× that is called uneven: there is little to "
            "explain."
        )
    beyond = (
        known[known["contribution_low"] > known["share_of_tokens"]]
        if known["contribution_low"].notna().any()
        else known
    )
    if len(known) < 2:
        return f"{begin}; all of it comes from {escaped(str(known.index[0]))}."
    if beyond.empty:
        return f"{begin}. No task brings more of its surplus than of the tokens, beyond its interval: all of them do."
    task = str((beyond["contribution"] - beyond["share_of_tokens"]).idxmax())
    row = beyond.loc[task]
    return (
        f"{begin}. **{escaped(task)}** brings {percent(float(row['contribution']))}{_interval(row)} of its surplus "
        "with "
        f"{percent(float(row['share_of_tokens']))} of the tokens; without that task the layer would be at "
        f"{times(float(row['max_over_mean_without']))}. Click a task to look at it alone."
    )


def of_tokens(table: pd.DataFrame) -> str:
    """Which token causes the overload.

    Args:
        table: of `overload_tokens`, the largest contribution first.
    """
    known = table[table["contribution"].notna()]
    if known.empty:
        return "No token of the vocabulary brings more than its share."
    row = known.iloc[0]
    sure = known[known["contribution_low"] > 0] if known["contribution_low"].notna().any() else known
    told = (
        f"**{escaped(repr(str(row['piece'])))}** brings most: {percent(float(row['contribution']))}{_interval(row)} "
        "of the "
        f"surplus; {percent(float(row['rate']))} of its {int(row['n_seen']):,} occurrences, in "
        f"{count(int(row['n_prompts']), 'prompt')}, choose the expert."
    )
    if len(sure) < 2:
        return f"{told} No other one shown is surely above 0."
    together = percent(float(sure["contribution"].sum()))
    return f"{told} The {len(sure)} shown that are surely above 0 bring {together} together."


def of_convergence(table: pd.DataFrame, *, layer: str) -> str:
    """Whether the load of a layer drifted while the run was recorded.

    Args:
        table: of one layer of `load_convergence`, index n_prompts.
        layer: which layer.
    """
    known = table[table["distance"].notna()]
    if len(known) < 2 or not known["p_value"].notna().any():
        return "A run of one prompt has no course."
    half = known[known.index <= max(int(known.index.max()) // 2, int(known.index.min()))].iloc[-1]
    p = float(known["p_value"].iloc[0])
    told = (
        f"After {int(half.name):,} of {int(known.index.max()):,} prompts, {percent(float(half['distance']))} of the "
        f"assignments in **{escaped(layer)}** were not yet where they ended up; in random orders it is "
        f"{percent(float(half['shuffled_mean']))} on average, 95\N{NO-BREAK SPACE}% below "
        f"{percent(float(half['shuffled_95']))}."
    )
    if p <= _SURE:
        return (
            f"{told} The load drifted (p = {p:.3f}): prompts of a kind stand together, so a part of the run says "
            "little."
        )
    return f"{told} No drift beyond chance (p = {p:.2f})."


def _interval(row: pd.Series) -> str:
    low, high = row["contribution_low"], row["contribution_high"]
    return f" (95\N{NO-BREAK SPACE}%: {percent(float(low))} to {percent(float(high))})" if np.isfinite(low) else ""
