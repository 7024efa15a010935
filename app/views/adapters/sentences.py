"""What generated adapters say of a model, in sentences with their null or interval, in Markdown, texts escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from app.sentences import and_list, count, escaped, part_of, size
from routing import expert_name

__all__ = ["PAIRS", "of_cosines", "of_ratios", "of_relations", "of_sharing", "of_sites", "significance"]

PAIRS = {
    "embedding–adapter": "embeddings and adapters",
    "embedding–weights": "embeddings and weights",
    "adapter–weights": "adapters and weights",
}


def of_sites(table: pd.DataFrame) -> str:
    """How many adapters there are, and where each is just another name for an expert or task.

    Args:
        table: of `distinct_adapters`.
    """
    trivial = [str(site) for site in table.index[table["bijection"].astype(bool)]]
    total = count(int(table["n_adapters"].sum()), "adapter")
    if len(trivial) == len(table):
        word = "expert" if (table["top_k"] == 1).all() else "task"
        return (
            f"{total}, **one for each {word} of each layer by construction**: that points of one {word} coincide is "
            "true of any such model, and where they lie is all that was learned."
        )
    told = f"{total} of {int(table['n_possible'].sum()):,} that are possible occur."
    if trivial:
        layers = and_list([escaped(each) for each in trivial])
        told += f" In {layers} there is one for each expert or task by construction."
    return told


def of_cosines(values: np.ndarray) -> str:
    """How far similarities reach.

    Args:
        values: (item, item), NaN of an item with itself.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return "There is nothing to compare."
    ends = [float(each) for each in (known.min(), known.max(), np.median(known))]
    # Two digits of what they differ by, so that the median stands apart from the ends.
    spread = ends[1] - ends[0]
    digits = min(6, max(2, 1 - math.floor(math.log10(spread)))) if spread > 0 else 2
    # Adding 0 takes the sign off a rounded zero.
    low, high, middle = (f"{round(each, digits) + 0.0:.{digits}f}" for each in ends)
    return f"Cosines from {low} to {high}, median {middle}."


def of_relations(table: pd.DataFrame, *, layer: str) -> str:
    """Whether experts alike in one way are alike in another, in one layer and over all.

    Args:
        table: of `expert_relations`.
        layer: that is shown.
    """
    told = []
    here = table.xs(layer, level="layer")
    for pair, row in here.iterrows():
        if not np.isfinite(row["rho"]):
            told.append(f"{PAIRS[str(pair)]}: {count(int(row['n_experts']), 'expert')} are too few to tell")
            continue
        told.append(
            f"{PAIRS[str(pair)]} agree at ρ = **{row['rho']:.2f}** (Mantel; other names for the experts reach "
            f"{row['null_95']:.2f} in one of twenty, p {significance(row['p_value'])})"
        )
    n_layers = table.index.get_level_values("layer").nunique()
    over = []
    if n_layers > 1:
        for pair, rows in table.groupby("pair", sort=False):
            n_beyond = int((rows["p_value"] <= 0.05).sum())
            over.append(f"{PAIRS[str(pair)]} in {n_beyond} of {count(n_layers, 'layer')}")
    together = f" At p ≤ 0.05: {and_list(over)}; chance gives one layer in twenty." if over else ""
    return f"In {escaped(layer)}, {'; '.join(told)}.{together}"


def of_sharing(found: xr.Dataset) -> str:
    """Whether adapters of one layer are more alike than those of two.

    Args:
        found: of `adapter_sharing`.
    """
    within, across, p = (float(found[name]) for name in ("within", "across", "p_value"))
    if not np.isfinite(p):
        return "There are too few adapters, or too few layers of one size, to compare layers."
    said = (
        f"Two adapters of one layer have a cosine of **{within:.2f}** on average, two of different layers "
        f"**{across:.2f}**"
    )
    null = f"adapters dealt to layers at random reach {float(found['null_95']):+.2f} in one of twenty"
    if p > 0.05:
        return f"{said}: a difference of {within - across:+.2f} within chance ({null}), so layers share what is made."
    return (
        f"{said}: a difference of {within - across:+.2f} beyond chance ({null}; p {significance(p)}), so layers differ."
    )


def of_ratios(table: pd.DataFrame, *, by: str, names: Mapping[str, Sequence[str]]) -> str:
    """Where adapters add most and least.

    Args:
        table: of `adapter_ratios` by expert or by task.
        by: "expert" or "task".
        names: names of the experts of layers that have some.
    """
    known = table.dropna(subset=["ratio"])
    if known.empty:
        return "No adapter was applied, so there is no ratio."

    def place(index: tuple[str, object]) -> str:
        site, item = index
        if by == "expert":
            return escaped(expert_name(str(site), int(str(item)), names=names))
        return f"{escaped(str(item))} at {escaped(str(site))}"

    most, least = known["ratio"].idxmax(), known["ratio"].idxmin()
    told = f"Adapters add most for {place(most)}: **{part_of(known.loc[most, 'ratio'])}** the norm that the layer gives"
    told += _interval(known.loc[most])
    if most == least:
        return f"{told}."
    apart = known.loc[most, "ratio_low"] > known.loc[least, "ratio_high"]
    return (
        f"{told}; least for {place(least)}, {part_of(known.loc[least, 'ratio'])} it{_interval(known.loc[least])}; "
        f"{'the intervals are apart' if apart else 'the intervals overlap, so the order may be chance'}."
    )


def significance(p: float) -> str:
    """A p-value with the digits that matter, to follow a p."""
    return "unknown" if not np.isfinite(p) else "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _interval(row: pd.Series) -> str:
    if not np.isfinite(row["ratio_low"]):
        return ""
    return f" (95\N{NO-BREAK SPACE}% {size(row['ratio_low'])} to {size(row['ratio_high'])})"
