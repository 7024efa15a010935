"""What the routes of tasks say, in sentences with their null or interval, in Markdown with every text escaped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.routes import RouteGrouping
from app.sentences import count, escaped
from app.views.adapters.sentences import significance
from routing import expert_name

__all__ = ["of_correlations", "of_dynamics", "of_grouping", "of_likeness", "of_snapshot", "of_entropy"]


def of_grouping(found: RouteGrouping) -> str:
    """Whether tasks that take like routes are of one type, and how far the task embedding already says so."""
    agreed = found.agreement
    n_types = found.labels["task_type"].nunique()
    if not np.isfinite(agreed.ami) or n_types < 2:
        told = "Tasks of one type only, so routes cannot be compared with types."
    else:
        verdict = "beyond" if agreed.ami > agreed.null_95 else "within"
        told = (
            f"Grouped by their routes into as many clusters as there are types, tasks agree with their types at an "
            f"adjusted mutual information of **{agreed.ami:.2f}**, {verdict} chance ({agreed.null_95:.2f} in one of "
            f"twenty deals of types, p {significance(agreed.p_value)}; {count(len(found.labels), 'task')})."
        )
    test = found.embedding
    if test is not None and np.isfinite(test.rho):
        told += (
            f" Routes follow the task embeddings at ρ = {test.rho:.2f} (Mantel, p {significance(test.p_value)}): the "
            "router is a smooth function of them, so an untrained one gives some of this, too."
            if test.p_value <= 0.05
            else f" They do not follow the task embeddings beyond chance (ρ = {test.rho:.2f}, Mantel, p "
            f"{significance(test.p_value)})."
        )
    return told


def of_entropy(table: pd.DataFrame) -> str:
    """In which layers tasks part ways, beyond routes dealt at random.

    Args:
        table: of `route_entropy`.
    """
    known = table.dropna(subset=["specialization"])
    if known.empty:
        return "No layer routed any task."
    most = str(known["specialization"].idxmax())
    row = known.loc[most]
    n_beyond = int((known["specialization"] > known["dealt_high"]).sum())
    n_under = int((known["specialization"] < known["dealt_low"]).sum())
    interval = (
        f" (95\N{NO-BREAK SPACE}% {row['specialization_low']:.2f} to {row['specialization_high']:.2f})"
        if np.isfinite(row["specialization_low"])
        else ""
    )
    return (
        f"Tasks part ways most in {escaped(most)}: **{row['specialization']:.2f}** nats{interval}, where "
        f"{row['effective_experts']:.1f} experts share the work. Routes whose experts are dealt anew to each task "
        f"reach {row['dealt_low']:.2f} to {row['dealt_high']:.2f} there, without any pattern; above it are {n_beyond} "
        f"and below it, as tasks share experts, {n_under} of {count(len(known), 'layer')}."
    )


def of_likeness(values: np.ndarray, *, types: Sequence[str]) -> str:
    """Whether tasks of one type are routed more alike than tasks of two; the test is that of the clusters.

    Args:
        values: (task, task) · cosine of routes, NaN of a task with itself.
        types: type of each task.
    """
    same = np.array(types)[:, None] == np.array(types)[None, :]
    within, across = values[same & np.isfinite(values)], values[~same & np.isfinite(values)]
    if not within.size or not across.size:
        return "There are no two types with several tasks to compare."
    return (
        f"Two tasks of one type have a cosine of **{within.mean():.2f}** on average, two of different types "
        f"{across.mean():.2f}; whether that is more than chance is said above, by the clusters."
    )


def of_correlations(table: pd.DataFrame) -> str:
    """Which experts go with a type at the last step, and from which step on beyond chance.

    Args:
        table: of `route_dynamics`.
    """
    rows = table.reset_index()
    last = rows[rows["step"] == rows["step"].max()]
    beyond = last[last["r"] > last["null_95"]].sort_values("r", ascending=False)
    if beyond.empty:
        return (
            "At the last step no expert goes with a type more than the best of all experts does when types are dealt "
            "to tasks at random."
        )
    found = []
    for row in beyond.head(3).itertuples():
        mine = rows[(rows["feature"] == row.feature) & (rows["layer"] == row.layer) & (rows["expert"] == row.expert)]
        mine = mine.sort_values("step")
        since = mine.loc[(mine["r"] > mine["null_95"]).iloc[::-1].cummin().iloc[::-1], "step"].min()
        name = escaped(expert_name(str(row.layer), int(row.expert)))
        found.append(f"{escaped(str(row.feature))} with **{name}** (r = {row.r:+.2f}, from step {int(since):,} on)")
    return (
        f"Beyond the largest of all experts under random deals: {'; '.join(found)}. The experts were chosen for the "
        "last step, so earlier steps are a fairer look."
    )


def of_dynamics(entropy: pd.DataFrame) -> str:
    """How decided the routes became, and when.

    Args:
        entropy: index (step, layer) · specialization, task_entropy.
    """
    by_step = entropy.groupby("step")[["specialization", "task_entropy"]].mean()
    if len(by_step) < 2:
        return "One step only, so nothing is said of how it came to be."
    first, last = by_step.index.min(), by_step.index.max()
    half = by_step["specialization"] >= by_step["specialization"].iloc[0] + 0.5 * (
        by_step["specialization"].iloc[-1] - by_step["specialization"].iloc[0]
    )
    grew = by_step["specialization"].iloc[-1] > by_step["specialization"].iloc[0]
    when = f", half of the way by step {int(half.idxmax()):,}" if grew and half.any() else ""
    return (
        f"From step {int(first):,} to {int(last):,} the specialization of a layer went from "
        f"{by_step['specialization'].iloc[0]:.2f} to **{by_step['specialization'].iloc[-1]:.2f}** nats on "
        f"average{when}; the entropy of a task's own route from {by_step['task_entropy'].iloc[0]:.2f} to "
        f"{by_step['task_entropy'].iloc[-1]:.2f}. It is one training run: no interval covers another seed."
    )


def of_snapshot(*, step: int, temperature: float, stage: int | None, n_tasks: int) -> str:
    """What a snapshot is."""
    which = f"step {step:,}" + (f" of stage {stage}" if stage is not None else "")
    return (
        f"Routes of {count(n_tasks, 'task')} at {which}, noise-free softmax at temperature 1 (training ran at "
        f"{temperature:.2f}). They are read off the model, and have no sampling error; another training would differ."
    )
