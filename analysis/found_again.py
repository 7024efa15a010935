"""Would other prompts give the same clusters?

Legend: P prompt, G task, L layer, E expert, X expert of any layer, I item, F feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from analysis.clustering import MOST_REDRAWN, SMALLEST_CLUSTERABLE, ward_labels
from analysis.more_clusters import block_labels, dense_labels
from analysis.nulls import p_value
from analysis.rates import draws_of_prompts, lift_of, prompt_rates
from analysis.scan import require_tokens
from analysis.signatures import complete_items
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["FoundAgain", "Method", "found_again"]

Method = Literal["tree", "blocks", "density"]

SMALLEST_DENSE = {"expert": 5, "task": 2}
"""Fewest items of a dense cluster: of the 17 or 40 tasks of a run, two that are alike are one."""


@dataclass(frozen=True, kw_only=True)
class FoundAgain:
    """How far clusters depend on the prompts that happened to be asked.

    Attributes:
        ari: mean adjusted Rand index between the clusters of all prompts and those of redrawn ones.
        low, high: the least and the largest over draws.
        null_mean: the same mean where tasks are dealt to prompts at random first, averaged over deals.
        null_95: its 95th percentile.
        p_value: how often such deals give clusters that are found again as well.
        n_clusters: of all prompts.
        n_items: items that were clustered.
    """

    ari: float
    low: float
    high: float
    null_mean: float
    null_95: float
    p_value: float
    n_clusters: int
    n_items: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Used:
    """How often each prompt uses each expert.

    Attributes:
        rate_PLE: share of the prompt's tokens, 0 where the layer routed none.
        routed_PLE: whether it routed any, and has the expert.
        n_PL: assignments behind it.
        places: of the experts that are clustered, or describe tasks, among all of all layers.
    """

    rate_PLE: np.ndarray
    routed_PLE: np.ndarray
    n_PL: np.ndarray
    places: np.ndarray


def found_again(
    trace: RoutingTrace,
    *,
    of: Literal["expert", "task"] = "expert",
    method: Method = "tree",
    layers: tuple[str, ...] = (),
    n_bootstrap: int = 20,
    n_permutations: int = 20,
    seed: int = 0,
) -> FoundAgain:
    """Whether clusters of experts, or of tasks, come out again where prompts are drawn again within their tasks.

    Items are described by their lifts, and clustered as `clusters` ("tree"), `co_clusters` ("blocks") and
    `density_clusters` ("density") do it, into as many clusters as those of all prompts; density finds its own number,
    and an item in none of its clusters is by itself. Draws share prompts with what they are held up to, so that
    clusters of noise are found again, too: the null deals tasks to prompts at random, clusters, and draws again.

    Args:
        trace: the trace.
        of: what is clustered.
        method: how.
        layers: only experts of these; all where empty.
        n_bootstrap: draws of prompts, of the trace and of each deal.
        n_permutations: deals of tasks for the null; 0 for none.
        seed: of draws and deals.

    Returns:
        (no dimension) · FoundAgain of adjusted Rand indices · at most 1; NaN where there are fewer than two clusters,
        or where the router decided once a task, so that prompts only repeat it.

    Raises:
        SelectionError: `of` or `method` names something else than what it may.
        TraceError: the trace holds counts only.

    References:
        Hennig 2007; Hubert & Arabie 1985.
    """
    if of not in ("expert", "task") or method not in ("tree", "blocks", "density"):
        msg = (
            f"Clusters of expert or task are drawn again, by tree, blocks or density, not of {of!r} by {method!r}. "
            "Correct the names."
        )
        raise SelectionError(msg)
    require_tokens(trace, for_what="clusters of redrawn prompts")
    rng = np.random.default_rng(seed)
    used = _used(trace, layers=layers or trace.layers, most=None if of == "task" else MOST_REDRAWN, rng=rng)
    label = _labeler(of=of, method=method, seed=seed)
    task_P = trace.task_of_prompt.astype(np.int64)
    n_draws = draws_of_prompts(trace, n_bootstrap)
    found, whole, n_items = _again(used, task_P, of=of, label=label, n_draws=n_draws, rng=rng)
    null = np.array(
        [
            np.mean(drawn) if len(drawn) else 0.0
            for drawn in (
                _again(used, rng.permutation(task_P), of=of, label=label, n_draws=n_draws, rng=rng)[0]
                for _ in range(draws_of_prompts(trace, n_permutations) if len(found) else 0)
            )
        ]
    )
    mean = float(np.mean(found)) if len(found) else np.nan
    return FoundAgain(
        ari=mean,
        low=float(np.min(found)) if len(found) else np.nan,
        high=float(np.max(found)) if len(found) else np.nan,
        null_mean=float(null.mean()) if len(null) else np.nan,
        null_95=float(np.quantile(null, 0.95)) if len(null) else np.nan,
        p_value=float(p_value(int((null >= mean - 1e-12).sum()), n_permutations=len(null))) if len(null) else np.nan,
        n_clusters=whole,
        n_items=n_items,
    )


_Label = Callable[[np.ndarray, int | None], np.ndarray]


def _labeler(*, of: str, method: str, seed: int) -> _Label:
    """A function from (item × feature) of lifts, and a number of clusters or None, to labels."""
    if method == "tree":
        return lambda values_IF, number: ward_labels(values_IF, n_clusters=number)
    if method == "density":
        return lambda values_IF, _: dense_labels(values_IF, smallest=SMALLEST_DENSE[of])
    return lambda values_IF, number: block_labels(2.0 ** np.clip(values_IF, -20, 20), n_clusters=number, seed=seed)


def _again(
    used: _Used, task_P: np.ndarray, *, of: str, label: _Label, n_draws: int, rng: np.random.Generator
) -> tuple[list[float], int, int]:
    """Agreement of each draw's clusters with those of all prompts; how many clusters; how many items."""
    from sklearn.metrics import adjusted_rand_score

    values_IF, kept_I = _lifts(used, task_P, np.ones(len(task_P)), of=of)
    if len(values_IF) < SMALLEST_CLUSTERABLE or values_IF.shape[1] < 1:
        return [], min(1, len(values_IF)), len(values_IF)
    whole_I = label(values_IF, None)
    number = len(np.unique(whole_I[whole_I >= 0]))
    if number < 2:
        return [], number, len(values_IF)
    at = np.full(int(kept_I.max()) + 1, -1)
    at[kept_I] = np.arange(len(kept_I))
    found = []
    for _ in range(n_draws):
        again_IF, again_kept_I = _lifts(used, task_P, _drawn_within(task_P, rng), of=of)
        both = np.isin(again_kept_I, kept_I)
        if both.sum() <= max(number, SMALLEST_CLUSTERABLE - 1):
            continue
        again_I = label(again_IF[both], number)
        found.append(float(adjusted_rand_score(_alone(whole_I[at[again_kept_I[both]]]), _alone(again_I))))
    return found, number, len(values_IF)


def _alone(labels: np.ndarray) -> np.ndarray:
    """Labels in which an item of no cluster is a cluster by itself."""
    return np.where(labels >= 0, labels, labels.max() + 1 + np.arange(len(labels)))


def _drawn_within(task_P: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(prompt,) how often each prompt is drawn, as many of each task as it has."""
    weight_P = np.zeros(len(task_P))
    for task in np.unique(task_P):
        mine = np.flatnonzero(task_P == task)
        weight_P += np.bincount(rng.choice(mine, len(mine)), minlength=len(task_P))
    return weight_P


def _used(trace: RoutingTrace, *, layers: tuple[str, ...], most: int | None, rng: np.random.Generator) -> _Used:
    shape = (trace.n_prompts, trace.n_layers, trace.n_experts)
    rate_PLE, n_PL = np.full(shape, np.nan, dtype=np.float32), np.zeros(shape[:2])
    for block in prompt_rates(trace):
        rate_PLE[:, block.layers] = block.rate_PLE
        n_PL[:, block.layers] = block.n_assignments_PL
    shown_LE = trace.expert_exists.to_numpy() & np.isin(list(trace.layers), list(layers))[:, None]
    places = np.flatnonzero(shown_LE)
    if most is not None and len(places) > most:
        places = np.sort(rng.choice(places, most, replace=False))
    routed_PLE = np.isfinite(rate_PLE)
    return _Used(rate_PLE=np.where(routed_PLE, rate_PLE, 0), routed_PLE=routed_PLE, n_PL=n_PL, places=places)


def _lifts(used: _Used, task_P: np.ndarray, weight_P: np.ndarray, *, of: str) -> tuple[np.ndarray, np.ndarray]:
    """Lifts with prompts weighted, as `signatures` has them, without gaps: (item, feature), and the items' places."""
    tasks = np.unique(task_P)
    member_GP = ((tasks[:, None] == task_P) * weight_P).astype(np.float32)
    rate_GLE = _means(used, member_GP)
    overall_LE = _means(used, weight_P[None].astype(np.float32))[0]
    lift_GLE = lift_of(rate_GLE, overall_LE=overall_LE, n_assignments_GL=member_GP @ used.n_PL)
    lift_GX = lift_GLE.reshape(len(tasks), -1)[:, used.places]
    values_IF, kept_I = complete_items(xr.DataArray(lift_GX.T if of == "expert" else lift_GX))
    return values_IF, kept_I


def _means(used: _Used, weight_GP: np.ndarray) -> np.ndarray:
    """(G, L, E) weighted means over the prompts that were routed; NaN where none was."""
    n_prompts = len(used.rate_PLE)
    total = weight_GP @ used.rate_PLE.reshape(n_prompts, -1)
    n_routed = weight_GP @ used.routed_PLE.reshape(n_prompts, -1).astype(np.float32)
    mean = np.where(n_routed > 0, total / np.maximum(n_routed, 1), np.nan)
    return mean.reshape(len(weight_GP), *used.rate_PLE.shape[1:])
