"""Instance vectors of a retriever: do examples of one task lie together, and where are the prototypes among them?

Legend: P prompt, T task, F feature, B permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.agreement import Agreement, agreement
from analysis.kept_maps import keep_map, kept_map
from analysis.nulls import p_value
from analysis.projection import MapMethod, Projection, laid_out
from analysis.token_sample import stratified_rows
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["InstanceGrouping", "instance_grouping", "instance_map", "unit_vectors"]


@dataclass(frozen=True, kw_only=True, eq=False)
class InstanceGrouping:
    """How well instance vectors separate the tasks.

    Attributes:
        silhouette: mean over prompts, by cosine distance and task; 1 apart, 0 mixed.
        silhouette_null_95: its 95th percentile where tasks are dealt to prompts at random.
        silhouette_p_value: how often a random deal separates as well.
        nmi: normalized mutual information of as many k-means clusters as tasks with the tasks.
        clusters: the same two partitions, corrected for chance, with the permutation null.
        n_prompts: prompts looked at.
        by_task: index task · task_type, silhouette, n_prompts.
    """

    silhouette: float
    silhouette_null_95: float
    silhouette_p_value: float
    nmi: float
    clusters: Agreement
    n_prompts: int
    by_task: pd.DataFrame


def unit_vectors(trace: RoutingTrace, name: str) -> xr.DataArray:
    """Vectors of a trace, each scaled to length 1.

    Raises:
        TraceError: the trace holds no such vectors.
    """
    table = trace.vectors.get(name)
    if table is None:
        msg = f"This trace holds no vectors {name!r}, only {sorted(trace.vectors)}. Record a model that has them."
        raise TraceError(msg)
    length = np.linalg.norm(table.to_numpy().astype(float), axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return table.copy(data=np.where(length > 0, table.to_numpy() / length, np.nan))


def instance_grouping(
    trace: RoutingTrace, *, n_permutations: int = 1000, most_prompts: int = 1000, seed: int = 0
) -> InstanceGrouping:
    """How well instance vectors separate the tasks, against tasks dealt to prompts at random.

    Args:
        trace: a trace with vectors "instance".
        n_permutations: random deals.
        most_prompts: of more, a seeded draw with as many of each task.
        seed: of the draw, of k-means and of the deals.

    Returns:
        (no dimension) · InstanceGrouping of a silhouette and an information · silhouette −1 to 1, nmi 0 to 1; NaN for
        fewer than two tasks.

    Raises:
        TraceError: the trace holds no instance vectors.

    References:
        Rousseeuw 1987 (silhouette); Vinh, Epps & Bailey 2010 (information between partitions).
    """
    vectors, prompts = _instances(trace)
    rows, _ = stratified_rows(pd.factorize(prompts["task"])[0], n_rows=most_prompts, seed=seed)
    values_PF, drawn = vectors[rows], prompts.iloc[rows]
    code_P, tasks = pd.factorize(drawn["task"])
    n_tasks = len(tasks)
    if n_tasks < 2 or len(rows) <= n_tasks:
        clusters = agreement(code_P[:1], code_P[:1], n_permutations=0)
        silhouette_P = np.full(len(rows), np.nan)
        null_95 = p = nmi = np.nan
    else:
        distance_PP = np.clip(1 - values_PF @ values_PF.T, 0, 2)
        silhouette_P = _silhouettes(distance_PP, code_P, n_tasks)
        rng = np.random.default_rng(seed)
        null = [_silhouettes(distance_PP, rng.permutation(code_P), n_tasks).mean() for _ in range(n_permutations)]
        reached = int((np.array(null) >= silhouette_P.mean() - 1e-12).sum())
        null_95 = float(np.quantile(null, 0.95)) if null else np.nan
        p = float(p_value(reached, n_permutations=n_permutations)) if null else np.nan
        labels = _k_means(values_PF, n_tasks, seed=seed)
        nmi = _normalized_information(code_P, labels)
        clusters = agreement(labels, code_P, n_permutations=n_permutations, seed=seed)
    grouped = drawn.assign(silhouette=silhouette_P).groupby("task", sort=False)
    by_task = pd.DataFrame(
        {
            "task_type": grouped["task_type"].first(),
            "silhouette": grouped["silhouette"].mean(),
            "n_prompts": grouped.size(),
        }
    )
    by_task.attrs["unit"] = {"silhouette": "−1 to 1", "n_prompts": "prompts"}
    return InstanceGrouping(
        silhouette=float(silhouette_P.mean()) if len(silhouette_P) else np.nan,
        silhouette_null_95=null_95,
        silhouette_p_value=p,
        nmi=nmi,
        clusters=clusters,
        n_prompts=len(rows),
        by_task=by_task,
    )


def instance_map(
    trace: RoutingTrace,
    *,
    method: MapMethod = "umap",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    most_items: int = 4000,
    seed: int = 0,
) -> Projection:
    """A map of the examples by their instance vectors, the prototypes among them; made once, kept beside the trace.

    All vectors are scaled to length 1, as the retriever compares them by cosine. Points carry `kind` ("prompt" or
    "prototype"), `prompt`, `task`, `task_type` and `score`.

    Args:
        trace: a trace with vectors "instance", and "prototype" if there are any.
        method: "umap", or "pca" for the two principal components.
        n_neighbors: how many neighbors UMAP tries to keep.
        min_dist: how close UMAP may put points.
        most_items: most prompts; of more, a seeded draw with as many of each task.
        seed: of the draw and of UMAP.

    Returns:
        (item) · Projection of positions without unit · any.

    Raises:
        SelectionError: the method is unknown.
        TraceError: the trace holds no instance vectors.
    """
    params: dict[str, Any] = {
        "method": method,
        "n_neighbors": n_neighbors,
        "most_items": most_items,
        "seed": seed,
        "version": 1,
    }
    params |= {"min_dist": min_dist} if method == "umap" else {}
    if (kept := kept_map(trace, name="instance-map", params=params)) is not None:
        return kept
    vectors, prompts = _instances(trace)
    rows, _ = stratified_rows(pd.factorize(prompts["task"])[0], n_rows=most_items, seed=seed)
    values, items = [vectors[rows]], [prompts.iloc[rows].assign(kind="prompt")]
    if "prototype" in trace.vectors:
        table = unit_vectors(trace, "prototype")
        names = [str(name) for name in table["prototype"].values]
        types = [trace.task_types.get(name, "other") for name in names]
        values.append(table.to_numpy())
        items.append(pd.DataFrame({"prompt": "", "task": names, "task_type": types, "kind": "prototype"}))
    table_of_items = pd.concat(items, ignore_index=True)
    table_of_items.insert(0, "item", np.arange(len(table_of_items)))
    note = ""
    if len(rows) < len(vectors):
        note = f"The map shows {len(rows):,} of {len(vectors):,} prompts, drawn at random: as many of each task."
    made = laid_out(
        np.nan_to_num(np.concatenate(values)),
        table_of_items,
        method=method,
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        seed=seed,
        options={"most_items": most_items},
        note=note,
    )
    keep_map(trace, made, name="instance-map", params=params)
    return made


def _instances(trace: RoutingTrace) -> tuple[np.ndarray, pd.DataFrame]:
    """Unit vectors of the prompts that have one, and what is known of these prompts."""
    table = unit_vectors(trace, "instance")
    known = trace.prompts[["prompt", "task", "task_type", "score"]].set_index("prompt", drop=False)
    prompts = known.reindex([str(name) for name in table["prompt"].values])
    there = prompts["task"].notna().to_numpy() & np.isfinite(table.to_numpy()).all(axis=1)
    return table.to_numpy()[there], prompts[there].reset_index(drop=True)


def _silhouettes(distance_PP: np.ndarray, code_P: np.ndarray, n_tasks: int) -> np.ndarray:
    """Silhouette of each prompt; 0 for the only one of its task."""
    member_PT = np.eye(n_tasks)[code_P]
    n_T = member_PT.sum(axis=0)
    sums_PT = distance_PP @ member_PT
    rows = np.arange(len(code_P))
    n_own = n_T[code_P]
    within = sums_PT[rows, code_P] / np.maximum(n_own - 1, 1)
    others_PT = np.where(n_T > 0, sums_PT / np.maximum(n_T, 1), np.inf)
    others_PT[rows, code_P] = np.inf
    nearest = others_PT.min(axis=1)
    widest = np.maximum(within, nearest)
    return np.where((n_own > 1) & (widest > 0), (nearest - within) / np.where(widest > 0, widest, 1), 0.0)


def _k_means(values: np.ndarray, n_clusters: int, *, seed: int) -> np.ndarray:
    # Slow to import, and not every view clusters.
    from sklearn.cluster import KMeans

    found: np.ndarray = KMeans(n_clusters=n_clusters, n_init=10, random_state=seed).fit_predict(values)
    return found


def _normalized_information(one: np.ndarray, other: np.ndarray) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(one, other))
