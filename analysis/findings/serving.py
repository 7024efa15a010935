"""Experts that serve a task: beyond permuted prompts, at least twice as much, in both halves of the prompts."""

from __future__ import annotations

import numpy as np

from analysis.findings.finding import Family, Finding, interval, p_text, some
from analysis.specialists import specialists
from analysis.specialization import specialization
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["serving"]


def serving(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question a task, layer and expert; one sentence a task, about its strongest expert."""
    if trace.level == "counts" or len(trace.tasks) < 2:
        return None
    tested = specialization(trace, seed=seed)
    number = {name: place for place, name in enumerate(tested["group"].values)}
    cell = np.arange(tested["p_value"].size).reshape(tested["p_value"].shape)
    table = specialists(trace, fdr=0.05, seed=seed)
    weighed = table.attrs["measure"] != "assignments"
    candidates = []
    for row in table.drop_duplicates("task").to_dict("records"):
        at = cell[number[row["task"]], trace.layers.index(row["layer"]), row["expert"]]
        others = int((table["task"] == row["task"]).sum()) - 1
        does = "gives it" if weighed else "its prompts choose it"
        whole = f"{row['rate']:.0%} of the weight" if weighed else f"{row['rate']:.0%} of {trace.unit}s"
        halves = " and ".join(f"{2 ** row[f'lift_{half}_half']:.1f}" for half in ("first", "second"))
        finding = Finding(
            kind="specialist",
            sentence=(
                f"{expert_name(row['layer'], row['expert'], names=trace.expert_names)} serves {row['task']}: "
                f"{does} {row['ratio']:.1f} times{interval(row['ratio_low'], row['ratio_high'])} as "
                f"{'much' if weighed else 'often'} as prompts do on average ({whole} against {row['overall']:.0%}), "
                f"stable across halves of the prompts ({halves} times){_and_others(others)}."
            ),
            effect=float(row["ratio"]),
            effect_low=float(row["ratio_low"]),
            effect_high=float(row["ratio_high"]),
            unit="times the rate of all prompts",
            strength=max(0.0, 1 - 1 / float(row["ratio_low"])) if row["ratio_low"] > 0 else 0.0,
            p_value=float(tested["p_value"].to_numpy().ravel()[at]),
            uncertainty=(
                "95 % interval from the scatter of prompts; p "
                f"{p_text(float(tested['p_value'].to_numpy().ravel()[at]))} against permuted prompts"
            ),
            view="tasks",
            selection_query=Selection(experts=((row["layer"], row["expert"]),)).to_query(),
        )
        candidates.append((int(at), finding))
    return Family(kind="specialist", p_values=tested["p_value"].to_numpy().ravel(), candidates=candidates)


def _and_others(number: int) -> str:
    return f"; {some(number, 'more expert')} {'does' if number == 1 else 'do'} so too" if number else ""
