"""Prototypes of tasks: how alike they are, what is retrieved for which task, and whether they stand in its middle.

Legend: D task, K prototype, P prompt, B permutation or draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.hierarchy import hierarchical_order
from analysis.instances import unit_vectors
from analysis.mantel import MantelTest, mantel
from analysis.nulls import label_permutations, p_value
from analysis.scan import require_tokens
from analysis.similarity import adapter_similarity, cosines, require_adapters
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = [
    "exchange_relation",
    "prototype_centers",
    "prototype_relations",
    "prototype_similarity",
    "retrieval",
    "retrieval_accuracy",
]

# 97.5th percentile of the normal distribution, for Wilson's interval.
_Z_95 = 1.959963984540054


def prototype_similarity(trace: RoutingTrace) -> xr.DataArray:
    """Cosine similarity of the prototypes; coordinate `leaf` is each one's place in the order of their tree.

    Returns:
        (prototype, other) · cosine · −1 to 1.

    Raises:
        TraceError: the trace holds no prototypes.
    """
    table = unit_vectors(trace, "prototype")
    names = [str(name) for name in table["prototype"].values]
    types = [trace.task_types.get(name, "other") for name in names]
    values = table.to_numpy()
    leaf = np.argsort(hierarchical_order(table, metric="cosine", method="average").order)
    return xr.DataArray(
        cosines(values),
        dims=("prototype", "other"),
        coords={"prototype": names, "other": names, "task_type": ("prototype", types), "leaf": ("prototype", leaf)},
        attrs={"unit": "cosine"},
    )


def prototype_relations(trace: RoutingTrace, *, n_permutations: int = 5000, seed: int = 0) -> pd.DataFrame:
    """Whether tasks with like prototypes get like adapters: `mantel` of the two, at each site.

    Args:
        trace: a trace with prototypes and adapters made from tasks.
        n_permutations: ways of naming the tasks.
        seed: of the permutations.

    Returns:
        (site) · rho, null_95, p_value, n_tasks · rank correlation −1 to 1; NaN for fewer than four tasks.

    Raises:
        TraceError: the trace holds no prototypes or no adapters.
    """
    of_prototypes, held = prototype_similarity(trace), require_adapters(trace)
    rows = {}
    for site in held.sites:
        if site.made_from != "task":
            continue
        table = adapter_similarity(trace, site=site.label, most_items=len(held))
        place = {key: number for number, key in enumerate(table["key"].to_numpy())}
        names = [name for name in of_prototypes["prototype"].values if name in place]
        order = [place[name] for name in names]
        test = mantel(
            of_prototypes.sel(prototype=names, other=names),
            table.to_numpy()[np.ix_(order, order)],
            n_permutations=n_permutations,
            seed=seed,
        )
        rows[site.label] = [test.rho, test.null_95, test.p_value, test.n_items]
    frame = pd.DataFrame(
        list(rows.values()), index=pd.Index(list(rows), name="site"), columns=["rho", "null_95", "p_value", "n_tasks"]
    )
    frame.attrs["unit"] = {"rho": "rank correlation", "null_95": "rank correlation", "p_value": "probability"}
    return frame


def exchange_relation(
    trace: RoutingTrace, change: pd.DataFrame, *, n_permutations: int = 5000, seed: int = 0
) -> MantelTest:
    """Whether a foreign prototype costs less where the two prototypes are alike: `mantel` of likeness and −cost.

    The cost of a pair is the mean of its two directions, the prompts of one under the prototype of the other.

    Args:
        trace: a trace with prototypes.
        change: task × prototype · change of the loss against the own prototype, as `prototype_exchange` measures it.
        n_permutations: ways of naming the tasks.
        seed: of the permutations.

    Returns:
        (no dimension) · MantelTest of a rank correlation · −1 to 1; NaN for fewer than four tasks.

    Raises:
        TraceError: the trace holds no prototypes.
    """
    alike = prototype_similarity(trace)
    names = [name for name in change.index if name in change.columns and name in alike["prototype"].values]
    cost = change.loc[names, names].to_numpy(float)
    return mantel(
        alike.sel(prototype=names, other=names), -(cost + cost.T) / 2, n_permutations=n_permutations, seed=seed
    )


def retrieval(trace: RoutingTrace) -> xr.Dataset:
    """Which prototype was retrieved for the prompts of each task.

    Tasks without a prototype of their own have a row, too: which prototypes they resemble.

    Returns:
        (task, prototype) · n_prompts, share · prompts, and share of the task's prompts, which sums to 1.

    Raises:
        TraceError: no layer of the trace has named experts, as a retriever has.
    """
    task_P, found_P, names = _retrieved(trace)
    counts = np.zeros((len(trace.tasks), len(names)), dtype=np.int64)
    np.add.at(counts, (task_P, found_P), 1)
    total = counts.sum(axis=1, keepdims=True)
    dims = ("task", "prototype")
    share = counts / np.where(total > 0, total, np.nan)
    return xr.Dataset(
        {"n_prompts": (dims, counts, {"unit": "prompts"}), "share": (dims, share, {"unit": "share of prompts"})},
        coords={
            "task": list(trace.tasks),
            "prototype": list(names),
            "task_type": ("task", list(trace.task_types.values())),
            "has_prototype": ("task", [task in names for task in trace.tasks]),
        },
    )


def retrieval_accuracy(trace: RoutingTrace, *, n_permutations: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How often a prompt retrieves the prototype of its own task, against tasks dealt to prompts at random.

    Only tasks that have a prototype. `chance` is what random deals retrieve: a prototype that is retrieved for
    everything is right by chance for its own task.

    Args:
        trace: a trace of a retriever.
        n_permutations: random deals.
        seed: of the deals.

    Returns:
        (task) · n_prompts, accuracy, accuracy_low, accuracy_high, chance, p_value · shares 0 to 1, Wilson's 95 %
        interval; the first row, "all", takes all these tasks together.

    Raises:
        TraceError: no layer of the trace has named experts, as a retriever has.

    References:
        Wilson 1927 (interval of a share).
    """
    task_P, found_P, names = _retrieved(trace)
    own_D = np.array([names.index(task) if task in names else -1 for task in trace.tasks], dtype=np.int64)
    known = own_D[task_P] >= 0 if len(task_P) else np.zeros(0, dtype=bool)
    task_P, found_P = task_P[known], found_P[known]
    tasks = [number for number, own in enumerate(own_D) if own >= 0]
    n_D = np.bincount(task_P, minlength=len(own_D))[tasks]
    right_D = np.bincount(task_P[own_D[task_P] == found_P], minlength=len(own_D))[tasks]
    parts = []
    for dealt_BP in label_permutations(task_P, n_permutations=n_permutations, seed=seed) if tasks else ():
        hit_BP = own_D[dealt_BP] == found_P
        parts.append(np.stack([(hit_BP & (dealt_BP == number)).sum(axis=1) for number in tasks], axis=1))
    null_BD = np.concatenate(parts) if parts else np.zeros((0, len(tasks)))
    n = np.concatenate([[n_D.sum()], n_D])
    right = np.concatenate([[right_D.sum()], right_D])
    null = np.concatenate([null_BD.sum(axis=1, keepdims=True), null_BD], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _wilson(right, n)
        frame = pd.DataFrame(
            {
                "n_prompts": n,
                "accuracy": right / np.where(n > 0, n, np.nan),
                "accuracy_low": low,
                "accuracy_high": high,
                "chance": null.mean(axis=0) / n if len(null) else np.nan,
                "p_value": p_value((null >= right).sum(axis=0), n_permutations=len(null)) if len(null) else np.nan,
            },
            index=pd.Index(["all", *(trace.tasks[number] for number in tasks)], name="task"),
        )
    columns = ("accuracy", "accuracy_low", "accuracy_high", "chance")
    frame.attrs["unit"] = dict.fromkeys(columns, "share of prompts") | {"p_value": "probability"}
    return frame


def prototype_centers(trace: RoutingTrace, *, n_bootstrap: int = 1000, seed: int = 0) -> xr.Dataset:
    """Whether a prototype stands in the middle of its task's examples: cosine of it with the mean of their vectors.

    `own` is that of a task with its own prototype, with a 95 % interval from drawing its prompts with replacement;
    `nearest_other` is the largest with another task's prototype, and `rank` the place of the own one among all.

    Args:
        trace: a trace with vectors "instance" and "prototype".
        n_bootstrap: draws; 0 for none.
        seed: of the draws.

    Returns:
        (task, prototype) · cosine, own, own_low, own_high, nearest_other, rank · cosine −1 to 1, rank 1 and up; NaN for
        a task without a prototype or without vectors.

    Raises:
        TraceError: the trace holds no instance vectors or no prototypes.
    """
    instance, prototype = unit_vectors(trace, "instance"), unit_vectors(trace, "prototype")
    names = [str(name) for name in prototype["prototype"].values]
    task_of = dict(zip(trace.prompts["prompt"], trace.prompts["task"], strict=True))
    task_P = np.array([task_of.get(str(name), "") for name in instance["prompt"].values], dtype=object)
    n_tasks = len(trace.tasks)
    cosine_DK = np.full((n_tasks, len(names)), np.nan)
    columns = {name: np.full(n_tasks, np.nan) for name in ("own", "own_low", "own_high", "nearest_other", "rank")}
    for number, task in enumerate(trace.tasks):
        values = instance.to_numpy()[task_P == task]
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            continue
        cosine_DK[number] = _with_mean(values.mean(axis=0), prototype.to_numpy())
        if task not in names:
            continue
        own = names.index(task)
        columns["own"][number] = cosine_DK[number, own]
        if len(names) > 1:
            columns["nearest_other"][number] = np.delete(cosine_DK[number], own).max()
        columns["rank"][number] = 1 + (cosine_DK[number] > cosine_DK[number, own]).sum()
        if n_bootstrap and len(values) > 1:
            rng = np.random.default_rng([seed, number])
            drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), n_bootstrap) @ values
            low_high = np.quantile(_with_mean(drawn, prototype.to_numpy()[own]), [0.025, 0.975])
            columns["own_low"][number], columns["own_high"][number] = low_high
    units = {"rank": "place among prototypes"}
    return xr.Dataset(
        {"cosine": (("task", "prototype"), cosine_DK, {"unit": "cosine"})}
        | {name: ("task", values, {"unit": units.get(name, "cosine")}) for name, values in columns.items()},
        coords={
            "task": list(trace.tasks),
            "prototype": names,
            "task_type": ("task", list(trace.task_types.values())),
        },
    )


def _retrieved(trace: RoutingTrace) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Of each row of the retriever: its task and the number of the prototype that was nearest; and the names."""
    require_tokens(trace, for_what="what was retrieved")
    layer = next((number for number, facts in enumerate(trace.layer_facts) if facts.expert_names), None)
    if layer is None:
        msg = "No layer of this trace has named experts, as a retriever of prototypes has. Take a trace of one."
        raise TraceError(msg)
    task, found = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for chunk in trace.chunks(fields=("experts",)):
        assert chunk.experts is not None
        nearest = chunk.experts[:, layer, 0]
        there = (nearest != trace.absent) & (chunk.task >= 0)
        task.append(chunk.task[there].astype(np.int64))
        found.append(nearest[there].astype(np.int64))
    return np.concatenate(task), np.concatenate(found), list(trace.layer_facts[layer].expert_names or ())


def _with_mean(means: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(means, axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = (means / np.where(length > 0, length, np.nan)) @ prototypes.T
    return found


def _wilson(hits: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = np.where(n > 0, n, np.nan)
    share, z2 = hits / size, _Z_95**2
    center = (share + z2 / (2 * size)) / (1 + z2 / size)
    spread = _Z_95 * np.sqrt(share * (1 - share) / size + z2 / (4 * size**2)) / (1 + z2 / size)
    return np.maximum(center - spread, 0.0), np.minimum(center + spread, 1.0)
