"""How routes of tasks came to be: the same tasks through snapshots of one training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.correlation import feature_correlation, task_features
from analysis.features import strongest_experts
from analysis.routes import RouteMode, route_entropy, task_routes
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["RouteDynamics", "route_dynamics"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RouteDynamics:
    """Routes over training.

    Attributes:
        correlations: index step, feature, layer, expert · r, null_95 and p_value of that step, for the experts that
            each feature correlates with most at the last step.
        entropy: index step, layer · the columns of `route_entropy`.
    """

    correlations: pd.DataFrame
    entropy: pd.DataFrame


def route_dynamics(
    traces: Mapping[int, RoutingTrace] | Mapping[str, RoutingTrace],
    *,
    mode: RouteMode = "recorded",
    features: pd.DataFrame | None = None,
    min_tasks: int = 2,
    n: int = 3,
    n_permutations: int = 1000,
    seed: int = 0,
) -> RouteDynamics:
    """How the correlation of experts with features of tasks, and the entropy of routes, developed.

    The experts are those that stand out at the last step, so their r there is the largest of many: read it against
    `null_95`, the largest of all experts when features are dealt at random, not against 0. Earlier steps are looked at
    for the same experts.

    Args:
        traces: a trace for each step of training; steps may be written as text.
        mode: which routes, as in `task_routes`.
        features: index task, a numeric column each; by default the task types that `min_tasks` share.
        min_tasks: fewest tasks of a type that is followed.
        n: experts of each feature.
        n_permutations: for the null of the correlations.
        seed: of the permutations.

    Returns:
        (no dimension) · RouteDynamics of tables by step · steps ascending.

    Raises:
        TraceError: there is no trace, or they differ in tasks or layers.
    """
    if not traces:
        msg = "There are no traces of training steps. Give at least one."
        raise TraceError(msg)
    steps = dict(sorted((int(step), trace) for step, trace in traces.items()))
    routes = {step: task_routes(trace, mode=mode) for step, trace in steps.items()}
    last = routes[max(routes)]
    for step, of_step in routes.items():
        same = set(of_step["task"].values) == set(last["task"].values) and of_step["layer"].equals(last["layer"])
        if not same or of_step.sizes["expert"] != last.sizes["expert"]:
            msg = f"The trace of step {step} has other tasks, layers or experts than the last. Record the same tasks."
            raise TraceError(msg)
    given = task_features(steps[max(steps)], min_tasks=min_tasks) if features is None else features
    found = {
        step: feature_correlation(
            trace,
            features=given,
            routes=None if mode == "recorded" else routes[step].sel(task=list(trace.tasks)),
            n_permutations=n_permutations,
            seed=seed,
        )
        for step, trace in steps.items()
    }
    chosen = strongest_experts(found[max(found)], n=n)
    parts = []
    for step, table in found.items():
        rows = chosen[["feature", "layer", "expert"]].copy()
        rows.insert(0, "step", step)
        for name in ("r", "p_value"):
            rows[name] = [
                float(table[name].sel(feature=row.feature, layer=row.layer, expert=row.expert))
                for row in chosen.itertuples()
            ]
        rows["null_95"] = [float(table["null_95"].sel(feature=feature)) for feature in chosen["feature"]]
        parts.append(rows)
    correlations = pd.concat(parts, ignore_index=True).set_index(["step", "feature", "layer", "expert"]).sort_index()
    correlations.attrs["unit"] = {"r": "correlation", "null_95": "correlation", "p_value": "probability"}
    entropy = {step: route_entropy(trace, mode=mode, seed=seed, n_bootstrap=200) for step, trace in steps.items()}
    table_of_entropy = pd.concat(entropy, names=["step", "layer"])
    table_of_entropy.attrs = dict(next(iter(entropy.values())).attrs)
    return RouteDynamics(correlations=correlations, entropy=table_of_entropy)
