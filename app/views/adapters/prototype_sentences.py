"""What prototypes, examples and retrieval say, in sentences with their null or interval, in Markdown, texts escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.instances import InstanceGrouping
from app.sentences import and_list, count, escaped, percent
from app.views.adapters.sentences import significance

__all__ = ["of_accuracy", "of_centers", "of_grouping", "of_prototype_relations"]


def of_grouping(found: InstanceGrouping) -> str:
    """Whether examples of a task lie together, against tasks dealt at random."""
    if not np.isfinite(found.silhouette):
        return "There are too few tasks or prompts to say whether examples of one task lie together."
    verdict = "beyond" if found.silhouette > found.silhouette_null_95 else "within"
    told = (
        f"Examples of one task lie together at a silhouette of **{found.silhouette:.2f}** ({verdict} what random deals "
        f"of tasks reach, {found.silhouette_null_95:.2f} in one of twenty; p {significance(found.silhouette_p_value)}; "
        f"{count(found.n_prompts, 'prompt')}, all features); as many k-means clusters as tasks agree with them at "
        f"a normalized mutual information of {found.nmi:.2f}."
    )
    known = found.by_task["silhouette"].dropna()
    if len(known) > 1 and known.min() < 0:
        mixed = [escaped(str(task)) for task in known[known < 0].sort_values().index]
        told += f" Nearer to another task than to their own are those of {and_list(mixed)}."
    return told


def of_accuracy(table: pd.DataFrame, *, n_without: int) -> str:
    """How often the own prototype is retrieved, against chance, and for which tasks it is not.

    Args:
        table: of `retrieval_accuracy`.
        n_without: tasks of the run that have no prototype.
    """
    whole = table.loc["all"]
    if not np.isfinite(whole["accuracy"]):
        return "No task of this run has a prototype of its own, so rows say only which ones its prompts resemble."
    n_prompts = count(int(whole["n_prompts"]), "prompt")
    told = (
        f"The own prototype is retrieved for **{percent(whole['accuracy'])}** of {n_prompts} "
        f"(95\N{NO-BREAK SPACE}% {percent(whole['accuracy_low'])} to {percent(whole['accuracy_high'])}; chance "
        f"{percent(whole['chance'])}, p {significance(whole['p_value'])})."
    )
    each = table.drop(index="all")
    worst = each["accuracy"].idxmin() if each["accuracy"].notna().any() else None
    if worst is not None and each.loc[worst, "accuracy"] < 1:
        row = each.loc[worst]
        told += (
            f" Least for {escaped(str(worst))}: {percent(row['accuracy'])} "
            f"({percent(row['accuracy_low'])} to {percent(row['accuracy_high'])})."
        )
    if n_without:
        told += (
            f" {count(n_without, 'task')} without a prototype {'has' if n_without == 1 else 'have'} a row, too: "
            "what is most like them."
        )
    return told


def of_prototype_relations(table: pd.DataFrame, *, site: str) -> str:
    """Whether tasks with like prototypes get like adapters.

    Args:
        table: of `prototype_relations`.
        site: whose adapters are shown.
    """
    if site not in table.index or not np.isfinite(table.loc[site, "rho"]):
        return "Fewer than four tasks have both a prototype and an adapter, too few for a test."
    row = table.loc[site]
    n_beyond = int((table["p_value"] <= 0.05).sum())
    told = (
        f"At {escaped(site)}, tasks with like prototypes get like adapters at ρ = **{row['rho']:.2f}** (Mantel over "
        f"{count(int(row['n_tasks']), 'task')}; other names for the tasks reach {row['null_95']:.2f} in one of twenty, "
        f"p {significance(row['p_value'])})."
    )
    if len(table) > 1:
        told += f" At p ≤ 0.05 so it is in {n_beyond} of {count(len(table), 'layer')}; chance gives one in twenty."
    return f"{told} A smooth generator makes like from like even untrained; what it adds is in the difference."


def of_centers(found: xr.Dataset) -> str:
    """Whether prototypes stand in the middle of their tasks' examples.

    Args:
        found: of `prototype_centers`.
    """
    own, other = found["own"].to_numpy(), found["nearest_other"].to_numpy()
    known = np.isfinite(own)
    if not known.any():
        return "No task has both a prototype and instance vectors."
    first = int((found["rank"].to_numpy()[known] == 1).sum())
    clear = int((found["own_low"].to_numpy()[known] > np.nan_to_num(other[known], nan=-1.0)).sum())
    return (
        f"For **{first}** of {count(int(known.sum()), 'task')} the own prototype is nearest to the middle of its "
        f"examples (median cosine {np.median(own[known]):.2f}; the nearest of another task "
        f"{np.nanmedian(other[known]):.2f}); for {clear} the interval over prompts excludes every other. By chance one "
        f"task in {found.sizes['prototype']} would have it nearest."
    )
