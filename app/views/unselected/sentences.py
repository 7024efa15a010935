"""What the router almost did, in sentences with their null or interval, in Markdown with every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from app.sentences import count, escaped, percent, times
from routing import expert_name

__all__ = ["of_entropies", "of_margins", "of_near_ties", "of_runners_up"]

_MOST_PAIRS = 3
# Median share of ln(experts): of 16 experts, one has 98 % of the score.
_DECIDED = 0.05


def of_margins(table: pd.DataFrame, *, unit: str, undecided: pd.DataFrame | None = None) -> str:
    """Which layers choose by a nose, and which by far.

    Args:
        table: index layer · n_tokens and quantiles of the margin.
        unit: what a row of the trace is, "token" or "prompt".
        undecided: index layer · quantiles of the entropy, where it is known.
    """
    known = table.dropna(subset=["q50"])
    if known.empty:
        return "No layer stored a runner-up's score, so nothing says how close the choices were."
    close, far = str(known["q50"].idxmin()), str(known["q50"].idxmax())
    n_tokens = int(known["n_tokens"].max())
    told = f"Of {count(n_tokens, unit)}, half have a margin under **{known.loc[close, 'q50']:.2g}** in {escaped(close)}"
    if close != far:
        told += f", where choices are closest, and under {known.loc[far, 'q50']:.2g} in {escaped(far)}"
    told = f"{told}."
    entropy = float("nan") if undecided is None else float(undecided["q50"].get(close, float("nan")))
    if entropy < _DECIDED:
        told += (
            f" That is no doubt of the router: in {escaped(close)} one expert has nearly all of the score (median "
            f"entropy {entropy:.2f}), so the others differ by little."
        )
    return f"{told} It describes these {unit}s; scores of different kinds of router have different scales."


def of_entropies(table: pd.DataFrame) -> str:
    """Which layers are undecided."""
    known = table.dropna(subset=["q50"])
    if known.empty:
        return "The scores of these routers are not known well enough for an entropy."
    most, least = str(known["q50"].idxmax()), str(known["q50"].idxmin())
    if most == least:
        return f"The median is {known.loc[most, 'q50']:.2f}; 1 would be all experts alike, 0 one that has it all."
    return (
        f"Most undecided is {escaped(most)} (median {known.loc[most, 'q50']:.2f}), least {escaped(least)} "
        f"({known.loc[least, 'q50']:.2f}); 1 would be all experts alike, 0 one that has it all."
    )


def of_near_ties(layers: pd.DataFrame, tasks: pd.DataFrame, *, within: float, unit: str) -> str:
    """How often a choice was as good as a tie, where most, and whether tasks differ by more than their intervals.

    Args:
        layers: index layer · share, share_low, share_high.
        tasks: index (task, layer) · the same.
        within: margin up to which it is a tie.
        unit: what a row of the trace is.
    """
    known = layers.dropna(subset=["share"])
    if known.empty:
        return "No layer stored a runner-up's score, so ties cannot be told."
    layer = str(known["share"].idxmax())
    row = known.loc[layer]
    if row["share"] == 0:
        return f"None of {count(int(known['n_tokens'].max()), unit)} is tied in any layer (margin at most {within:g})."
    told = (
        f"Most ties (margin at most {within:g}) are in {escaped(layer)}: **{percent(row['share'])}** of its {unit}s"
        f"{_interval(row).replace('; ', ' (', 1)}{')' if _interval(row) else ''}."
    )
    here = tasks.xs(layer, level="layer").dropna(subset=["share"])
    if len(here) < 2:
        return told
    highest, lowest = here.loc[here["share"].idxmax()], here.loc[here["share"].idxmin()]
    most = f"{escaped(str(here['share'].idxmax()))} has most there ({percent(highest['share'])}{_interval(highest)})"
    if lowest["share"] == 0:
        return f"{told} {most}; {int((here['share'] == 0).sum())} of {count(len(here), 'task')} have none."
    differ = highest["share_low"] > lowest["share_high"]
    least = f"{escaped(str(here['share'].idxmin()))} fewest ({percent(lowest['share'])}{_interval(lowest)})"
    return (
        f"{told} {most}, {least}; "
        f"{'their intervals are apart' if differ else 'their intervals overlap, so this may be chance'}."
    )


def of_runners_up(table: xr.Dataset, *, names: Mapping[str, Sequence[str]], unit: str) -> str:
    """Which pairs stand out beyond independence.

    Args:
        table: of `runner_up_matrix`.
        names: names of the experts of layers that have some.
        unit: what a row of the trace is.
    """
    layer = str(table.attrs["layer"])
    n_tested = int(np.isfinite(table["p_value"]).sum())
    if not n_tested:
        return (
            f"{count(int(table.attrs['n_tokens']), unit)} are too few to say whether the runner-up depends on who is "
            "selected: no cell is expected five times."
        )
    called = table["significant"].to_numpy() & (table["lift"].to_numpy() > 0)
    rows, columns = np.nonzero(called)
    share, lift = table["share"].to_numpy(), table["lift"].to_numpy()
    order = np.argsort(-share[rows, columns], kind="stable")[:_MOST_PAIRS]
    pairs = [
        f"**{escaped(expert_name(layer, int(columns[i]), names=names))}** behind "
        f"{escaped(expert_name(layer, int(rows[i]), names=names))} "
        f"({percent(share[rows[i], columns[i]])} of its {unit}s, "
        f"{times(float(np.exp2(lift[rows[i], columns[i]])))} what independence gives)"
        for i in order
    ]
    if not pairs:
        return (
            f"No expert of {escaped(layer)} comes second behind another more often than independence gives, of "
            f"{count(n_tested, 'cell')} tested at a false-discovery rate of {percent(table.attrs['fdr'])}."
        )
    return (
        f"{count(len(rows), 'pair')} of {n_tested} tested beyond independence (false-discovery rate "
        f"{percent(table.attrs['fdr'])}, over prompts): {'; '.join(pairs)}. Gray cells are within chance."
    )


def _interval(row: pd.Series) -> str:
    if not np.isfinite(row["share_low"]):
        return ""
    return f"; 95\N{NO-BREAK SPACE}%: {percent(row['share_low'])} to {percent(row['share_high'])}"
