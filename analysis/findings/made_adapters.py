"""What generated adapters follow from: embeddings and weights of experts, or prototypes of tasks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.findings.finding import Family, Finding, p_text
from analysis.prototypes import prototype_relations, retrieval_accuracy
from analysis.similarity import expert_relations
from routing.errors import RoutingError
from routing.trace import RoutingTrace

__all__ = ["alike_adapters", "retrieved"]

_WORDS = {"embedding": "embeddings", "adapter": "generated adapters", "weights": "weights"}


def alike_adapters(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question a layer and pair of likenesses: are experts, or tasks, that are alike in one alike in the other?"""
    table = _known(trace, expert_relations, seed=seed)
    if table is not None:
        rows = [
            (f"experts with alike {_WORDS[one]} have alike {_WORDS[other]} in {layer}", row, "experts")
            for (layer, pair), row in table.iterrows()
            for one, other in [str(pair).split("–")]
        ]
    else:
        table = _known(trace, prototype_relations, seed=seed)
        if table is None:
            return None
        rows = [
            (f"tasks with alike prototypes have alike adapters in {site}", row, "tasks")
            for site, row in table.iterrows()
        ]
    candidates = []
    for number, (said, row, noun) in enumerate(rows):
        rho, limit = float(row["rho"]), float(row["null_95"])
        if not rho > max(limit, 0.0):
            continue
        n_items = int(row[f"n_{noun}"])
        finding = Finding(
            kind="relation",
            sentence=(
                f"{said[0].upper()}{said[1:]}: rank correlation {rho:.2f} over {n_items} {noun}, where random names "
                f"stay below {limit:.2f}."
            ),
            effect=rho,
            unit="rank correlation",
            strength=0.5 * (rho - max(limit, 0.0)) / max(1e-9, 1 - max(limit, 0.0)),
            p_value=float(row["p_value"]),
            uncertainty=f"p {p_text(float(row['p_value']))} against {noun} named at random",
            view="adapters",
            selection_query={},
        )
        candidates.append((number, finding))
    return Family(kind="relation", p_values=table["p_value"].to_numpy(float), candidates=candidates)


def retrieved(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question: is a prompt's own prototype nearest more often than chance would have it?"""
    table = _known(trace, retrieval_accuracy, seed=seed)
    if table is None or "all" not in table.index:
        return None
    row = table.loc["all"]
    if not np.isfinite(row["p_value"]):
        return None
    finding = Finding(
        kind="retrieval",
        sentence=(
            f"The nearest prototype is that of the prompt's own task for {row['accuracy']:.0%} "
            f"[{row['accuracy_low']:.0%}, {row['accuracy_high']:.0%}] of {int(row['n_prompts']):,} prompts; by chance "
            f"for {row['chance']:.0%}."
        ),
        effect=float(row["accuracy"]),
        effect_low=float(row["accuracy_low"]),
        effect_high=float(row["accuracy_high"]),
        unit="share of prompts",
        strength=0.5 * max(0.0, float(row["accuracy_low"] - row["chance"]) / max(1e-9, 1 - float(row["chance"]))),
        p_value=float(row["p_value"]),
        uncertainty=f"95 % interval over prompts; p {p_text(float(row['p_value']))} against tasks dealt to prompts",
        view="adapters",
        selection_query={},
    )
    return Family(kind="retrieval", p_values=np.array([float(row["p_value"])]), candidates=((0, finding),))


def _known(trace: RoutingTrace, function: Callable[..., pd.DataFrame], *, seed: int) -> pd.DataFrame | None:
    """The table, None where the trace does not hold what it needs."""
    if trace.level == "counts" or not (trace.vectors or trace.adapters):
        return None
    try:
        table = function(trace, seed=seed)
    except RoutingError:
        return None
    return None if table.empty else table
