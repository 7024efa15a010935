"""Is the load healthy? Verdicts in sentences, each with its threshold and the reason for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.capacity import capacity_drops
from analysis.convergence import load_convergence
from analysis.load import idle_experts, load_balance
from analysis.pass_load import worst_passes
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["Level", "Verdict", "load_health"]

Level = Literal["good", "watch", "act", "unknown"]

ACT, WATCH = 2.0, 1.5
DROPS_ACT, DROPS_WATCH, FACTOR = 0.05, 0.01, 1.25
PASS_EXCESS = 1.25
CHANCE = 0.01
WIDE = 0.25
DRIFT = 0.02


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is well or wrong with the load.

    Attributes:
        check: "busiest", "idle", "passes", "capacity", "drift" or "length".
        level: "good", "watch", "act", or "unknown" where it cannot be told.
        sentence: what was found, with its figures.
        threshold: from where on the level changes.
        reason: why there.
        selection_query: the selection to look at, as `Selection.to_query` writes it.
    """

    check: str
    level: Level
    sentence: str
    threshold: str
    reason: str
    selection_query: dict[str, str]


def load_health(trace: RoutingTrace, *, batch_size: int = 16, seed: int = 0) -> list[Verdict]:
    """Verdicts on the load: what to act on first, then what to watch, what is well, and what cannot be told.

    Each check looks at the worst layer. A level is given only if the interval, not just the figure, is beyond the
    threshold, or if the figure is beyond its null; where the figure is and its interval is not, it cannot be told.

    Args:
        trace: the trace.
        batch_size: prompts a batch, for passes and capacities.
        seed: of draws and permutations.

    Returns:
        (verdict) · a list of Verdict · one a check, fewer where nothing was routed.

    Raises:
        SelectionError: the batch size is below 1.
    """
    if not trace.n_layers or not (trace.n_tokens or trace.level == "counts"):
        return []
    found = [*_busiest(trace, seed=seed), *_idle(trace)]
    if trace.level != "counts":
        found += [
            *_passes(trace, batch_size=batch_size, seed=seed),
            *_capacity(trace, batch_size=batch_size, seed=seed),
            *_drift(trace, seed=seed),
        ]
    order = ("act", "watch", "good", "unknown")
    return sorted(found, key=lambda verdict: order.index(verdict.level))


def _busiest(trace: RoutingTrace, *, seed: int) -> Iterator[Verdict]:
    table = load_balance(trace, seed=seed)
    known = table[table["max_over_mean"].notna()]
    if known.empty:
        return
    layer = str(known["max_over_mean"].idxmax())
    row = known.loc[layer]
    sure = float(row["max_over_mean_low"])
    even = bool(row["max_over_mean"] <= WATCH)
    level: Level = "act" if sure > ACT else "watch" if sure > WATCH else "good" if even else "unknown"
    interval = f" [{sure:.2f}, {row['max_over_mean_high']:.2f}]" if np.isfinite(sure) else ""
    name = expert_name(layer, int(row["hottest"]), names=trace.expert_names)
    yield Verdict(
        check="busiest",
        level=level,
        sentence=f"{name} does {row['max_over_mean']:.2f}{interval} times the mean work of its layer"
        + (f", the most of all {len(known)} layers." if len(known) > 1 else "."),
        threshold=f"watch above {WATCH:g}, act above {ACT:g}, with the whole 95 % interval",
        reason=f"With experts on devices of their own the layer takes as many times as long as an even one; at {ACT:g} "
        "half of the devices' time is lost.",
        selection_query=Selection(layers=(layer,), experts=((layer, int(row["hottest"])),)).to_query(),
    )
    width = (known["max_over_mean_high"] - known["max_over_mean_low"]) / known["max_over_mean"]
    if width.notna().any():
        widest = str(width.idxmax())
        yield Verdict(
            check="length",
            level="good" if width.max() <= WIDE else "watch",
            sentence=f"{trace.n_prompts:,} prompts tell the busiest expert's load to within {width.max():.0%} of "
            f"itself in every layer ({widest} is the least certain).",
            threshold=f"watch if an interval is wider than {WIDE:.0%} of its figure",
            reason="Beyond that, a change between two runs of this size is mostly the draw of the prompts.",
            selection_query=Selection(layers=(widest,)).to_query(),
        )


def _idle(trace: RoutingTrace) -> Iterator[Verdict]:
    table = idle_experts(trace)
    n_experts = int(trace.expert_exists.sum())
    sure = table[table["chance_idle_prompts"] * n_experts <= CHANCE]
    threshold = f"act if a fair expert would be idle with p ≤ {CHANCE:g} among all experts, its prompts agreeing"
    reason = (
        "An expert that no prompt of so many chooses holds parameters that nothing uses; on few prompts it is chance."
    )
    if not sure.empty:
        worst = str(sure["layer"].value_counts().idxmax())
        yield Verdict(
            check="idle",
            level="act",
            sentence=f"{len(sure)} of {n_experts} experts were never chosen, {(sure['layer'] == worst).sum()} of them "
            f"in {worst}; chance would leave none idle.",
            threshold=threshold,
            reason=reason,
            selection_query=Selection(layers=(worst,)).to_query(),
        )
    elif len(table):
        yield Verdict(
            check="idle",
            level="unknown",
            sentence=f"{len(table)} of {n_experts} experts were never chosen, which so few prompts may do by chance.",
            threshold=threshold,
            reason=reason,
            selection_query=Selection(layers=tuple(dict.fromkeys(table["layer"].astype(str)))).to_query(),
        )
    else:
        yield Verdict(
            check="idle",
            level="good",
            sentence=f"All {n_experts} experts were chosen.",
            threshold=threshold,
            reason=reason,
            selection_query={},
        )


def _passes(trace: RoutingTrace, *, batch_size: int, seed: int) -> Iterator[Verdict]:
    table = worst_passes(trace, batch_size=batch_size, seed=seed)
    phases = table.index.get_level_values("phase")
    read, wrote = (table.xs("prompt", level="phase") if "prompt" in phases else table.iloc[:0]), "generated" in phases
    if read.empty or not (read["n_passes"] > 1).any():
        return
    excess = read["mean"] / read["shuffled_mean"]
    if not excess.notna().any():
        return
    layer = str(excess.idxmax())
    row = read.loc[layer]
    uneven = float(excess.max()) > PASS_EXCESS and row["p_value"] <= CHANCE
    yield Verdict(
        check="passes",
        level="watch" if uneven else "good",
        sentence=f"In {layer} the busiest expert of a batch does {row['mean']:.2f} times the mean on average and "
        f"{row['worst']:.2f} times in the worst batch; batches of random prompts {row['shuffled_mean']:.2f}, "
        f"all prompts together {row['whole_run']:.2f}{', answers left out' if wrote else ''}.",
        threshold=f"watch if batches are {PASS_EXCESS:g} times as uneven as batches of random prompts, p ≤ {CHANCE:g}",
        reason="A device waits for the busiest expert of every pass, not of the run; mixing prompts would mend this.",
        selection_query=Selection(layers=(layer,)).to_query(),
    )


def _capacity(trace: RoutingTrace, *, batch_size: int, seed: int) -> Iterator[Verdict]:
    table = capacity_drops(trace, factors=(FACTOR,), batch_size=batch_size, seed=seed).sel(factor=FACTOR)
    rate = table["drop_rate"].to_series().dropna()
    if rate.empty:
        return
    layer = str(rate.idxmax())
    low = float(table["drop_rate_low"].sel(layer=layer))
    even = float(table["even_router"].sel(layer=layer))
    high = float(table["drop_rate_high"].sel(layer=layer))
    felt = max(DROPS_WATCH, even)
    # A figure beyond the threshold whose interval is not is no good news: there are too few batches to tell.
    level: Level = "act" if low > DROPS_ACT else "watch" if low > felt else "good" if rate.max() <= felt else "unknown"
    interval = f" [{low:.1%}, {high:.1%}]" if np.isfinite(low) else ""
    yield Verdict(
        check="capacity",
        level=level,
        sentence=f"With a capacity factor of {FACTOR:g}, {rate.max():.1%}{interval} of the assignments in {layer} "
        f"would be dropped (an even router: {even:.1%}).",
        threshold=f"watch above {DROPS_WATCH:.0%}, act above {DROPS_ACT:.0%}, with the whole 95 % interval",
        reason=f"{FACTOR:g} is a common factor of training; below {DROPS_WATCH:.0%} drops are hardly felt, above "
        f"{DROPS_ACT:.0%} one token in twenty misses an expert that it chose.",
        selection_query=Selection(layers=(layer,)).to_query(),
    )


def _drift(trace: RoutingTrace, *, seed: int) -> Iterator[Verdict]:
    table = load_convergence(trace, n_points=10, seed=seed).reset_index()
    if table.empty:
        return
    half = table[table["n_prompts"] <= max(1, trace.n_prompts // 2)].groupby("layer", sort=False).last()
    half = half[half["p_value"].notna() & half["distance"].notna()]
    if half.empty:
        return
    excess = half["distance"] - half["shuffled_95"]
    layer = str(excess.idxmax())
    row = half.loc[layer]
    drifts = row["p_value"] <= CHANCE and excess.max() > DRIFT
    yield Verdict(
        check="drift",
        level="watch" if drifts else "good",
        sentence=f"Half-way through the run, {row['distance']:.1%} of {layer}'s load was not yet where it ended up; of "
        f"random orders 95 % stay below {row['shuffled_95']:.1%}.",
        threshold=f"watch if that is more than {DRIFT:.0%} beyond random orders, p ≤ {CHANCE:g}",
        reason="Tasks recorded one after the other make the first part of a run say little about the whole.",
        selection_query=Selection(layers=(layer,)).to_query(),
    )
