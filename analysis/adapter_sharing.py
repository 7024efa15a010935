"""Do layers share what their hypernetwork makes? Likeness of adapters within a layer and across layers.

Legend: A adapter, S site, B deal.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from analysis.nulls import p_value
from analysis.similarity import adapter_similarity
from routing.trace import RoutingTrace

__all__ = ["adapter_sharing"]


def adapter_sharing(
    trace: RoutingTrace, *, most_items: int = 600, n_permutations: int = 500, seed: int = 0
) -> xr.Dataset:
    """Mean cosine of distinct adapters of one site, and of two sites, against adapters dealt to sites at random.

    `difference` is the mean over pairs within a site less that over pairs across sites of one stack, since stacks have
    hypernetworks of their own; adapters are dealt within their stack. Only sites of one size are compared. Near 0, a
    hypernetwork makes the same for all layers; far above its null, the layer decides.

    Args:
        trace: a trace with adapters.
        most_items: most adapters; of more a seeded draw with as many of each site.
        n_permutations: deals of adapters to sites.
        seed: of the draw and of the deals.

    Returns:
        (site, other) · cosine; () · within, across, difference, null_95, p_value · cosine −1 to 1; NaN where there are
        no two adapters to compare.

    Raises:
        TraceError: the trace holds no adapters.
    """
    alike = adapter_similarity(trace, most_items=most_items, seed=seed)
    cosine_AA, of_A = alike.to_numpy(), alike["site"].to_numpy()
    held = set(of_A)
    sites = [site.label for site in trace.adapters.sites if site.label in held] if trace.adapters is not None else []
    number_A = np.array([sites.index(site) for site in of_A], dtype=np.int64)
    pair_AA = np.isfinite(cosine_AA) & ~np.eye(len(number_A), dtype=bool)
    total = np.where(pair_AA, cosine_AA, 0.0)
    member_AS = np.eye(len(sites))[number_A]
    n_SS = member_AS.T @ pair_AA @ member_AS
    with np.errstate(divide="ignore", invalid="ignore"):
        found_SS = (member_AS.T @ total @ member_AS) / n_SS
    stacks = {} if trace.adapters is None else {site.label: site.stack for site in trace.adapters.sites}
    stack_A = np.unique([stacks[site] for site in of_A], return_inverse=True)[1]
    own_AA = pair_AA & (stack_A[:, None] == stack_A[None, :])
    total = np.where(own_AA, total, 0.0)
    rng = np.random.default_rng(seed)
    observed = _within_and_across(total, own_AA, number_A)
    dealt = np.array(
        [
            np.subtract(*_within_and_across(total, own_AA, _dealt(number_A, stack_A, rng=rng)))
            for _ in range(n_permutations)
        ]
    )
    difference = observed[0] - observed[1]
    tested = bool(len(dealt)) and np.isfinite(difference)
    reached = int((dealt >= difference - 1e-12).sum())
    scalars = {
        "within": (observed[0], "cosine"),
        "across": (observed[1], "cosine"),
        "difference": (difference, "cosine"),
        "null_95": (float(np.quantile(dealt, 0.95)) if tested else np.nan, "cosine"),
        "p_value": (float(p_value(reached, n_permutations=len(dealt))) if tested else np.nan, "probability"),
    }
    return xr.Dataset(
        {"cosine": (("site", "other"), found_SS, {"unit": "cosine"})}
        | {name: ((), value, {"unit": unit}) for name, (value, unit) in scalars.items()},
        coords={"site": sites, "other": sites},
        attrs={"n_adapters": len(number_A), "projected": alike.attrs["projected"]},
    )


def _dealt(number_A: np.ndarray, stack_A: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Sites dealt anew to the adapters of each stack."""
    found = number_A.copy()
    for stack in np.unique(stack_A):
        members = np.flatnonzero(stack_A == stack)
        found[members] = number_A[rng.permutation(members)]
    return found


def _within_and_across(total_AA: np.ndarray, pair_AA: np.ndarray, number_A: np.ndarray) -> tuple[float, float]:
    same_AA = number_A[:, None] == number_A[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.float64(total_AA[same_AA].sum()) / pair_AA[same_AA].sum()
        across = np.float64(total_AA[~same_AA].sum()) / pair_AA[~same_AA].sum()
    return float(within), float(across)
