"""How alike generated adapters, experts' embeddings and experts' weights are.

Legend: A adapter, E expert.
"""

from __future__ import annotations

from itertools import pairwise
from math import comb
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.adapter_signatures import adapter_signatures
from analysis.mantel import mantel
from routing.adapters import Adapters
from routing.errors import SelectionError, TraceError
from routing.trace import RoutingTrace

__all__ = ["adapter_similarity", "cosines", "distinct_adapters", "expert_relations", "expert_similarities"]


def cosines(values: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows; NaN with a row of zeros."""
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(length > 0, values / length, np.nan)
    return np.clip(unit @ unit.T, -1.0, 1.0)


def require_adapters(trace: RoutingTrace) -> Adapters:
    """The adapters of a trace.

    Raises:
        TraceError: it holds none.
    """
    if trace.adapters is None:
        msg = "This trace holds no generated adapters. Take one of a model that makes them, such as HyperMoE or PHA."
        raise TraceError(msg)
    return trace.adapters


def adapter_similarity(
    trace: RoutingTrace,
    *,
    site: str | None = None,
    of: str = "parameters",
    by: Literal["adapter", "expert"] = "adapter",
    most_items: int = 600,
    seed: int = 0,
) -> xr.DataArray:
    """Cosine similarity of adapters, of one site or across sites.

    By "adapter", each distinct adapter is an item, and items of sites of different size are not compared. By "expert",
    the items are the experts of one site whose adapters are made from sets of them: for experts i and j, the mean over
    the adapters of sets with i and without j (each scaled to length 1) is compared with the mean over those with j and
    without i, so that no adapter stands on both sides.

    Args:
        trace: a trace with adapters.
        site: label of a site; None compares across all of them.
        of: "parameters", or the name of a conditioning vector, such as "selection_embedding".
        by: what the items are.
        most_items: most adapters; of more a seeded draw with as many of each site.
        seed: of the draw.

    Returns:
        (adapter, other) · cosine · −1 to 1; NaN where sites differ in size or an adapter is all zeros.

    Raises:
        SelectionError: there is no such site or vector, or the site's adapters are not made from experts.
        TraceError: the trace holds no adapters.
    """
    held = require_adapters(trace)
    if by not in ("adapter", "expert"):
        msg = f"Adapters are compared by adapter or expert, not by {by!r}. Correct `by`."
        raise SelectionError(msg)
    if site is not None:
        held.site_number(site)
    items = adapter_signatures(trace, values=of, most_items=most_items if by == "adapter" else len(held), seed=seed)
    if site is not None:
        items = items.isel(item=np.flatnonzero(items["site"].to_numpy() == site))
    if by == "expert":
        return _by_expert(trace, held, items, site=site)
    found = cosines(items.to_numpy())
    size = {each.label: (each.hidden, each.width) for each in held.sites}
    sizes = np.array([hash(size[label]) for label in items["site"].to_numpy()])
    found[sizes[:, None] != sizes] = np.nan
    columns = {name: ("adapter", items[name].to_numpy()) for name in ("site", "key", "n_uses", "task", "task_type")}
    names = items["item"].to_numpy()
    return xr.DataArray(
        found,
        dims=("adapter", "other"),
        coords={"adapter": names, "other": names, **columns},
        attrs={"unit": "cosine", "of": of, "projected": bool(items.attrs["projected"])},
    )


def _by_expert(trace: RoutingTrace, held: Adapters, items: xr.DataArray, *, site: str | None) -> xr.DataArray:
    made_from = {each.label: each.made_from for each in held.sites}
    if site is None or made_from[site] != "selected_set" or site not in trace.layers:
        msg = f"Adapters of {site!r} cannot be compared by expert. Name one site whose adapters are made from experts."
        raise SelectionError(msg)
    n_experts = trace.layer_facts[trace.layers.index(site)].n_experts
    values = items.to_numpy()
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(length > 0, length, 1.0)
    member_EA = np.zeros((n_experts, len(unit)), dtype=bool)
    for place, key in enumerate(items["key"].to_numpy()):
        member_EA[[int(each) for each in key.split()], place] = True
    # Sums of adapters have the products that the products of adapters sum up to, so that each is read once.
    product_AA = unit @ unit.T
    found = np.full((n_experts, n_experts), np.nan)
    for i in range(n_experts):
        for j in range(i):
            one, other = np.flatnonzero(member_EA[i] & ~member_EA[j]), np.flatnonzero(member_EA[j] & ~member_EA[i])
            between, *own = (
                float(product_AA[np.ix_(a, b)].sum()) for a, b in ((one, other), (one, one), (other, other))
            )
            if min(own) > 1e-12:
                found[i, j] = found[j, i] = np.clip(between / np.sqrt(own[0] * own[1]), -1.0, 1.0)
        if member_EA[i].any():
            found[i, i] = 1.0
    experts = np.arange(n_experts)
    attrs = {"unit": "cosine", "of": items.attrs["values"], "projected": bool(items.attrs["projected"])}
    return xr.DataArray(found, dims=("adapter", "other"), coords={"adapter": experts, "other": experts}, attrs=attrs)


def distinct_adapters(trace: RoutingTrace) -> pd.DataFrame:
    """How many adapters there are at each site, and whether each is just another name for what it was made from.

    With one selected expert a token, or adapters made from the task, there is one adapter for each expert or task: that
    a map of them shows one point an expert is true by construction and says nothing about what was learned.

    Returns:
        (site) · n_adapters, n_used, n_sources, top_k, n_possible, bijection, sentence · adapters; sources are experts,
        tasks or prompts; top_k 0 where no router decides.

    Raises:
        TraceError: the trace holds no adapters.
    """
    held = require_adapters(trace)
    rows = []
    for site in held.sites:
        mine = held.table[held.table["site"] == site.label]
        facts = next((each for each in trace.layer_facts if each.label == site.label), None)
        if site.made_from == "selected_set" and facts is not None:
            n_sources, top_k, word = facts.n_experts, facts.top_k, "selected expert"
            n_possible = comb(n_sources, top_k)
        else:
            n_sources = trace.n_prompts if site.made_from == "instance" else mine["key"].nunique()
            top_k, n_possible, word = 0, n_sources, "prompt" if site.made_from == "instance" else "task"
        bijection = top_k <= 1 and site.made_from != "instance"
        sentence = (
            f"{site.label}: one adapter for each {word} by construction, so there are {len(mine)} points before any "
            "projection, however many tokens use them."
            if bijection
            else f"{site.label}: {len(mine)} of {n_possible:,} possible adapters occur."
        )
        rows.append(
            {
                "site": site.label,
                "n_adapters": len(mine),
                "n_used": int((mine["n_uses"] > 0).sum()),
                "n_sources": n_sources,
                "top_k": top_k,
                "n_possible": n_possible,
                "bijection": bijection,
                "sentence": sentence,
            }
        )
    frame = pd.DataFrame(rows).set_index("site")
    frame.attrs["unit"] = dict.fromkeys(("n_adapters", "n_used", "n_possible"), "adapters")
    return frame


def expert_similarities(trace: RoutingTrace) -> xr.Dataset:
    """How alike the experts of each layer are, by their embeddings, the adapters of their sets, and their weights.

    Which of the three there are depends on the model and on what the recording could read.

    Returns:
        (layer, expert, other) · embedding, adapter, weights · cosine −1 to 1; NaN where a layer lacks the expert or no
        adapter tells two experts apart.

    Raises:
        TraceError: the trace holds none of them.
    """
    shape = (trace.n_layers, trace.n_experts, trace.n_experts)
    found: dict[str, np.ndarray] = {}
    if (embedding := trace.vectors.get("expert_embedding")) is not None:
        found["embedding"] = np.full(shape, np.nan)
        for number, facts in enumerate(trace.layer_facts):
            if facts.label in embedding["layer"].values:
                n = facts.n_experts
                table = embedding.sel(layer=facts.label).to_numpy()[:n].astype(float)
                found["embedding"][number, :n, :n] = cosines(table)
    sites = [] if trace.adapters is None else trace.adapters.sites
    for site in sites:
        if site.made_from == "selected_set" and site.label in trace.layers:
            number = trace.layers.index(site.label)
            n = trace.layer_facts[number].n_experts
            found.setdefault("adapter", np.full(shape, np.nan))
            found["adapter"][number, :n, :n] = adapter_similarity(trace, site=site.label, by="expert").to_numpy()
    if (weights := trace.vectors.get("expert_weight_similarity")) is not None:
        found["weights"] = np.full(shape, np.nan)
        for number, facts in enumerate(trace.layer_facts):
            if facts.label in weights["layer"].values:
                n = facts.n_experts
                found["weights"][number, :n, :n] = weights.sel(layer=facts.label).to_numpy()[:n, :n]
    if not found:
        msg = "This trace holds no embeddings, adapters or weights of experts to compare. Record a model that has them."
        raise TraceError(msg)
    experts = np.arange(trace.n_experts)
    return xr.Dataset(
        {name: (("layer", "expert", "other"), values, {"unit": "cosine"}) for name, values in found.items()},
        coords={"layer": list(trace.layers), "expert": experts, "other": experts},
    )


def expert_relations(trace: RoutingTrace, *, n_permutations: int = 5000, seed: int = 0) -> pd.DataFrame:
    """Whether experts that are alike in one way are alike in another: `mantel` of `expert_similarities`, by layer.

    Args:
        trace: a trace with at least two of: embeddings, adapters and weights of experts.
        n_permutations: ways of naming the experts.
        seed: of the permutations.

    Returns:
        (layer, pair) · rho, null_95, p_value, n_experts · rank correlation −1 to 1; NaN for fewer than four experts.

    Raises:
        TraceError: the trace does not hold two of them.
    """
    tables = expert_similarities(trace)
    names = [name for name in ("embedding", "adapter", "weights") if name in tables]
    if len(names) < 2:
        msg = f"Only {names} of experts can be compared here; a relation needs two. Record what else the model has."
        raise TraceError(msg)
    pairs = list(pairwise(names)) + ([(names[0], names[2])] if len(names) == 3 else [])
    rows = {}
    for layer in trace.layers:
        for one, other in pairs:
            test = mantel(
                tables[one].sel(layer=layer), tables[other].sel(layer=layer), n_permutations=n_permutations, seed=seed
            )
            rows[layer, f"{one}–{other}"] = [test.rho, test.null_95, test.p_value, test.n_items]
    index = pd.MultiIndex.from_tuples(list(rows), names=["layer", "pair"])
    frame = pd.DataFrame(list(rows.values()), index=index, columns=["rho", "null_95", "p_value", "n_experts"])
    frame["n_experts"] = frame["n_experts"].astype(int)
    frame.attrs["unit"] = {"rho": "rank correlation", "null_95": "rank correlation", "p_value": "probability"}
    return frame
