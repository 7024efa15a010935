"""What is measured of learned routes at the end of a run: features, sharpness, knock-outs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moe_models.task_moe import TaskMoeForConditionalGeneration

from .dissociation import dissociation
from .examples import Examples
from .route_features import route_report
from .routes import sharpness


def route_measures(
    routes: np.ndarray,
    task_types: Sequence[str],
    model: TaskMoeForConditionalGeneration,
    *,
    n_permutations: int,
    n_untrained: int,
    seed: int,
) -> dict[str, Any]:
    """Return features against routes, soft (τ = 1) and as one expert each, and how sharp the routes are.

    Args:
        routes: noise-free routes at τ = 1 (T, L, m).
        task_types: the type of each task.
        model: for the widths of its router.
        n_permutations: shufflings of the tasks.
        n_untrained: fresh routers to compare with.
        seed: of both.
    """
    hard = np.eye(routes.shape[-1])[routes.argmax(-1)]
    told = {
        "router": {"embedding": model.config.task_embedding_dim, "hidden": model.config.router_hidden_dim},
        "n_permutations": n_permutations,
        "n_untrained": n_untrained,
        "seed": seed,
    }
    return {
        **sharpness(routes),
        "n_distinct_hard_routes": len({table.tobytes() for table in routes.argmax(-1)}),
        "soft": route_report(routes, task_types, **told),
        "hard": route_report(hard, task_types, **told),
    }


def knock_outs(
    model: TaskMoeForConditionalGeneration,
    examples: Examples,
    task_types: Sequence[str],
    measures: Mapping[str, Any],
    *,
    n_experts_out: int,
    n_random: int,
) -> dict[str, Any]:
    """Return, by feature, what disabling its experts does; nothing where a layer has one expert only."""
    if model.config.num_layer_experts < 2:
        return {}
    tables = measures["soft"].get("correlations", [])
    kinds = np.array(task_types)
    features = list(measures["soft"]["features"])
    return {
        feature: dissociation(
            model,
            examples,
            np.array(table),
            kinds == feature,
            n_experts_out=n_experts_out,
            n_random=n_random,
            seed=number,
            others={other: kinds == other for other in features},
        )
        for number, (feature, table) in enumerate(zip(features, tables, strict=True))
    }
