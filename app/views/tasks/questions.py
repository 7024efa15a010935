"""Questions of the view Tasks that take several steps, each a function from a trace to tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from analysis.agreement import Agreement, agreement, expert_task_types
from analysis.clustering import clusters
from analysis.controls import controlled_specialization
from analysis.correctness import correctness_link
from analysis.correlation import feature_correlation
from analysis.expert_agreement import expert_agreement
from analysis.features import partial_correlation
from analysis.found_again import found_again
from analysis.hierarchy import hierarchical_order
from analysis.more_clusters import co_clusters, density_clusters
from analysis.prompt_features import prompt_correlation
from analysis.rates import group_rates
from analysis.reliability import split_half
from analysis.signatures import signatures
from app.slow_answers import Tables
from app.views.tasks.feature_table import of_held, of_prompts, of_tasks
from routing import RoutingTrace, SelectionError

__all__ = [
    "CONTROLS",
    "LARGE",
    "answer_links",
    "control_cells",
    "control_shares",
    "feature_cells",
    "halves",
    "structure",
    "token_budget",
]

LARGE = 0.1
"""Difference of rates from which on a cell is called large."""

_SHORT = 0.1

# Each control by itself, and what `controlled_specialization` is asked for; "budget" stands for that of the trace.
CONTROLS: dict[str, dict[str, object]] = {
    "as recorded": {},
    "same position": {"match": "position"},
    "same token": {"match": "token_id"},
    "no template": {"without_template": True},
    "equal budgets": {"tokens_a_prompt": "budget"},
}


def token_budget(trace: RoutingTrace) -> int:
    """Tokens that nine in ten prompts have, so that equal budgets leave hardly any of them short."""
    n_P = np.bincount(trace.tokens["prompt"].to_numpy(), minlength=trace.n_prompts)
    n_P = n_P[n_P > 0]
    return max(1, int(np.quantile(n_P, _SHORT))) if len(n_P) else 1


def control_cells(
    trace: RoutingTrace,
    *,
    match: str | None,
    without_template: bool,
    equal_budgets: bool,
    over: Literal["task", "task_type"] = "task",
) -> Tables:
    """Differences of rates with something held fixed, beside the plain ones.

    Returns:
        "cells": group, layer, expert and the columns of `controlled_specialization`, with plain_significant; "about":
        budget and covered, one row; or "problem" alone, where the controls leave nothing.
    """
    budget = token_budget(trace) if equal_budgets else None
    try:
        held = controlled_specialization(
            trace,
            match=match,  # type: ignore[arg-type]
            without_template=without_template,
            tokens_a_prompt=budget,
            over=over,
        )
        plain = controlled_specialization(trace, over=over)
    except SelectionError as error:
        return {"problem": pd.DataFrame({"text": [str(error)]})}
    columns = ["rate", "difference", "plain_difference", "p_value", "q_value", "significant"]
    cells = held[columns].to_dataframe()[columns]
    cells["plain_significant"] = plain["significant"].to_series().reindex(cells.index)
    about = pd.DataFrame({"budget": [budget or 0], "covered": [float(np.nanmean(held["covered"].to_numpy()))]})
    return {"cells": cells.reset_index(), "about": about}


def control_shares(trace: RoutingTrace, *, over: Literal["task", "task_type"] = "task") -> Tables:
    """How many cells differ much, and how many of those beyond chance, with each control by itself.

    Returns:
        "shares": control, group, layer, n_cells, n_large, n_sure.
    """
    rows = []
    for name, options in CONTROLS.items():
        asked = {key: token_budget(trace) if value == "budget" else value for key, value in options.items()}
        try:
            found = controlled_specialization(trace, over=over, **asked)  # type: ignore[arg-type]
        except SelectionError:
            continue
        known = found["difference"].notnull()
        large = known & (np.abs(found["difference"]) >= LARGE)
        sums = {
            "n_cells": known.sum("expert"),
            "n_large": large.sum("expert"),
            "n_sure": (large & found["significant"].astype(bool)).sum("expert"),
        }
        table = pd.DataFrame({key: each.to_series() for key, each in sums.items()}).reset_index()
        rows.append(table.assign(control=name))
    columns = ["control", "group", "layer", "n_cells", "n_large", "n_sure"]
    return {"shares": pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)}


def feature_cells(trace: RoutingTrace, *, column: str, kind: str, within_task: bool = False, held: str = "") -> Tables:
    """Correlation of every expert with what a column says of tasks or prompts.

    Args:
        trace: the trace.
        column: of tasks or prompts.
        kind: which of the two.
        within_task: of prompts, whether what the task explains is taken from both.
        held: of tasks, a column whose part is taken from both; empty for none.

    Returns:
        "cells": feature, layer, expert, r, p_max, limit (what the best of all experts reaches by chance), lift (log2
        ratio of rates: to all tasks for a column of tasks, to the other prompts for one of prompts), and r_low and
        r_high where there is an interval, and plain_r where something was held; "features": feature, null_95, n
        (tasks or prompts behind it), and left where something was held (share of its spread that this leaves).
    """
    if kind == "task":
        features = of_tasks(trace, column=column)
        if features.empty or not len(features.columns):
            return _no_features()
        if held:
            return _held_cells(trace, features, of_held(trace, column=held))
        found = feature_correlation(trace, features=features).rename(p_value="p_max")
        cells = found[["r", "p_max"]].to_dataframe()[["r", "p_max"]].reset_index()
        cells["lift"] = _lift_of_features(trace, features).reshape(-1)
        cells["limit"] = cells["feature"].map(found["null_95"].to_series())
        about = pd.DataFrame({"null_95": found["null_95"].to_series(), "n": found["n_tasks"].to_series()})
        return {"cells": cells, "features": about.reset_index(names="feature")}
    prompts = of_prompts(trace, column=column)
    if not len(prompts.columns):
        return _no_features()
    found = prompt_correlation(trace, features=prompts, within="task" if within_task else None)
    columns = ["r", "r_low", "r_high", "lift", "limit", "p_max"]
    cells = found[columns].to_dataframe()[columns].reset_index()
    about = pd.DataFrame({"null_95": found["null_95"].to_series(), "n": found["n_prompts"].to_series()})
    return {"cells": cells, "features": about.reset_index(names="feature")}


def _held_cells(trace: RoutingTrace, features: pd.DataFrame, held: pd.DataFrame) -> Tables:
    """Partial correlations of one feature at a time: values of one column leave nothing of each other."""
    plain = feature_correlation(trace, features=features, n_permutations=0)["r"]
    held = held.rename(columns=lambda name: f"held {name}")
    cells, about = [], []
    for name in features.columns:
        found = partial_correlation(trace, features=pd.concat([features[[name]], held], axis=1)).sel(feature=name)
        table = found[["r", "p_value"]].to_dataframe()[["r", "p_value"]].rename(columns={"p_value": "p_max"})
        table["plain_r"] = plain.sel(feature=name).to_series().reindex(table.index)
        null_95 = float(found["null_95"])
        cells.append(table.reset_index().assign(feature=name, lift=np.nan, limit=null_95))
        about.append({"feature": name, "null_95": null_95, "n": len(features), "left": float(found["left"])})
    return {"cells": pd.concat(cells, ignore_index=True), "features": pd.DataFrame(about)}


def answer_links(trace: RoutingTrace) -> Tables:
    """Experts that are used more, or less, where the answer is right, within tasks.

    Returns:
        "experts": as `correctness_link` gives them; "about": n_tasks that have right and wrong answers.
    """
    if not np.isfinite(pd.to_numeric(trace.prompts["score"], errors="coerce").to_numpy(float)).any():
        return {"experts": pd.DataFrame(), "about": pd.DataFrame({"n_tasks": [0], "has_scores": [False]})}
    table = correctness_link(trace)
    about = pd.DataFrame({"n_tasks": [len(table.attrs.get("tasks", ()))], "has_scores": [True]})
    return {"experts": pd.DataFrame(table), "about": about}


def halves(trace: RoutingTrace, *, over: Literal["task", "task_type"] = "task") -> Tables:
    """Whether two halves of the prompts agree on who uses whom, layer by layer.

    Returns:
        "layers": layer, and the columns of `split_half`.
    """
    return {"layers": split_half(trace, over=over).reset_index()}


def structure(trace: RoutingTrace, *, of: str, method: str, layers: Sequence[str] = ()) -> Tables:
    """Clusters of experts by the tasks that they serve, or of tasks by the experts that they use.

    Args:
        trace: the trace.
        of: "expert" or "task".
        method: "tree" (Ward, leaves in optimal order), "blocks" (spectral co-clustering) or "density" (HDBSCAN).
        layers: only experts of these; all where empty.

    Returns:
        "items": item, task_type or layer and expert, cluster, place (of the leaf); "about": one row of figures, among
        them agreement with the types of tasks (of experts: of the tasks that they mainly serve, and with layers), and
        whether redrawn prompts give the clusters again; "values": (item × feature) of tasks as rows, correlation
        between them; "types": of experts, cluster, task_type, mean, q_value, n_experts.
    """
    table = signatures(trace, of=of, values="lift")  # type: ignore[arg-type]
    dim = "item" if of == "expert" else "feature"
    if layers:
        table = table.isel({dim: np.isin(table["layer"].values.astype(str), list(layers))})
    about: dict[str, object] = {"method": method, "n_items": table.sizes["item"]}
    if method == "blocks":
        blocks = co_clusters(table)
        labels, n_clusters, note = blocks.items, blocks.n_clusters, blocks.note
        about |= {"figure": "modularity", "value": blocks.modularity}
        about |= {"null_95": blocks.null_95, "p_value": blocks.p_value, "stability": blocks.stability}
    else:
        # Of the 17 or 40 tasks of a run, two that are alike are a cluster.
        found = clusters(table) if method == "tree" else density_clusters(table, smallest=5 if of == "expert" else 2)
        labels, n_clusters, note = found.labels, found.n_clusters, found.note
        about |= {"figure": "silhouette", "value": found.silhouette}
        about |= {"null_95": found.null_95, "p_value": found.p_value, "stability": found.stability}
    about |= {"n_clusters": n_clusters, "note": note}
    order = hierarchical_order(table, axis="item").order if table.sizes["item"] > 2 else range(table.sizes["item"])
    place = np.empty(table.sizes["item"], dtype=int)
    place[np.asarray(list(order), dtype=int)] = np.arange(table.sizes["item"])
    items = pd.DataFrame({"cluster": labels.to_numpy(), "place": place})
    found_tables: Tables = {}
    about |= _found_again(trace, of=of, method=method, layers=tuple(layers))
    if of == "expert":
        items = items.assign(layer=table["layer"].values.astype(str), expert=table["expert"].values)
        several = len(np.unique(labels.to_numpy()[labels.to_numpy() >= 0])) > 1
        if several and len(set(trace.task_types.values())) > 1:
            types = expert_task_types(table, labels)
            about |= _agreed(expert_agreement(table, labels), "_main")
            about |= {"explained": types.explained_share, "types_95": types.null_95, "types_p": types.p_value}
            found_tables["types"] = types.table.to_dataframe().reset_index()
        if several and len(set(items["layer"])) > 1:
            about |= _agreed(expert_agreement(table, labels, reference="layer"), "_layer")
    else:
        kinds = np.array([trace.task_types[str(task)] for task in table["task"].values])
        items = items.assign(task=table["task"].values.astype(str), task_type=kinds)
        about |= _agreed(agreement(labels, kinds), "")
        n_types = len(set(kinds))
        if method == "tree" and 1 < n_types < len(kinds) and len(kinds) > 3:
            cut = clusters(table, n_clusters=n_types, n_permutations=0, n_bootstrap=0)
            about |= _agreed(agreement(cut.labels, kinds), "_cut") | {"n_types": n_types}
        found_tables["values"] = _likeness(table.to_numpy())
    return {"items": items, "about": pd.DataFrame([about]), **found_tables}


def _found_again(trace: RoutingTrace, *, of: str, method: str, layers: tuple[str, ...]) -> dict[str, object]:
    if trace.level == "counts":
        return {}
    again = found_again(trace, of=of, method=method, layers=layers)  # type: ignore[arg-type]
    return {"again": again.ari, "again_low": again.low, "again_high": again.high, "again_95": again.null_95,
            "again_p": again.p_value}  # fmt: skip


def _agreed(found: Agreement, end: str) -> dict[str, object]:
    return {
        f"ami{end}": found.ami,
        f"ari{end}": found.ari,
        f"agree_p{end}": found.p_value,
        f"agree_95{end}": found.null_95,
    }


def _likeness(values: np.ndarray) -> pd.DataFrame:
    """(item × item) · correlation between rows, over the columns that both have."""
    return pd.DataFrame(values.T).corr().rename(columns=str)


def _lift_of_features(trace: RoutingTrace, features: pd.DataFrame) -> np.ndarray:
    """(F, L, E) log2 of the mean rate where a feature of 0 and 1 holds, over that of all tasks."""
    rate_SLE = group_rates(trace, over="task").rate_GLE
    found = np.full((len(features.columns), *rate_SLE.shape[1:]), np.nan)
    for number, name in enumerate(features.columns):
        value = features[name].to_numpy(float)
        if not set(np.unique(value)) <= {0.0, 1.0} or not value.any():
            continue
        known = np.isfinite(rate_SLE)
        filled = np.where(known, rate_SLE, 0.0)
        mine = value > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = filled[mine].sum(axis=0) / known[mine].sum(axis=0)
            ratio = np.log2(inside / (filled.sum(axis=0) / known.sum(axis=0)))
        found[number] = np.where(np.isfinite(ratio), ratio, np.nan)
    return found


def _no_features() -> Tables:
    cells = pd.DataFrame(columns=["feature", "layer", "expert", "r", "p_max", "limit", "lift"])
    return {"cells": cells, "features": pd.DataFrame(columns=["feature", "null_95", "n"])}
