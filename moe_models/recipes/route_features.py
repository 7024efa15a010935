"""Do routes follow what people say of tasks: correlation of experts with features, and whether chance would do it.

Letters in shapes: T task, L routed layer, m experts a layer, F feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from moe_models.task_moe import TaskRouter

FEATURES = ("extractive", "classification", "knowledge")


def feature_table(task_types: Sequence[str], features: Sequence[str] = FEATURES) -> np.ndarray:
    """Return which task is of which type: (F, T) of 0 and 1."""
    return np.array([[float(kind == feature) for kind in task_types] for feature in features])


def correlations(routes: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return Pearson's r over tasks of each feature with each expert's weight.

    Args:
        routes: (T, L, m).
        features: (F, T).

    Returns:
        (F, L, m) · −1 to 1, 0 where a feature or an expert's weight is the same for all tasks.
    """
    flat = _standardized(routes.reshape(len(routes), -1).T)
    return (_standardized(features) @ flat.T).reshape(len(features), *routes.shape[1:])


def permutation_test(
    routes: np.ndarray, features: np.ndarray, *, n_permutations: int, seed: int
) -> list[dict[str, Any]]:
    """Return each feature's best expert, and how often shuffled tasks have one as good somewhere.

    The statistic is the largest |r| over all experts, so that looking at all of them is paid for.

    Args:
        routes: (T, L, m).
        features: (F, T).
        n_permutations: shufflings of the tasks, 5,000 or more for a p-value to report.
        seed: of the shufflings.

    Returns:
        For each feature ``layer``, ``expert`` and ``r`` of the largest |r|; ``p_value``, (1 + as good) / (1 + all);
        ``null_mean`` and ``null_95`` of the shuffled maximum; ``p_value_family``, the same against the maximum over
        all features too.
    """
    found = correlations(routes, features)
    flat = _standardized(routes.reshape(len(routes), -1).T)
    wanted = _standardized(features)
    random = np.random.default_rng(seed)
    null = np.empty((n_permutations, len(features)))
    for number in range(n_permutations):
        null[number] = np.abs(wanted[:, random.permutation(wanted.shape[1])] @ flat.T).max(axis=1)
    family = null.max(axis=1)
    told = []
    for number, table in enumerate(found):
        layer, expert = np.unravel_index(np.abs(table).argmax(), table.shape)
        r = float(table[layer, expert])
        # A hair of slack: a shuffling that changes nothing must count as as good.
        as_good = (null[:, number] >= abs(r) - 1e-9).sum()
        told.append(
            {
                "layer": int(layer),
                "expert": int(expert),
                "r": r,
                "p_value": float((1 + as_good) / (1 + n_permutations)),
                "p_value_family": float((1 + (family >= abs(r) - 1e-9).sum()) / (1 + n_permutations)),
                "null_mean": float(null[:, number].mean()),
                "null_95": float(np.quantile(null[:, number], 0.95)),
            }
        )
    return told


def untrained_correlations(
    features: np.ndarray, *, n_layers: int, n_experts: int, embedding: int, hidden: int, n_draws: int, seed: int
) -> np.ndarray:
    """Return the largest |r| of each feature under fresh routers on fresh random task embeddings: (n_draws, F).

    A router is a smooth function of the embedding, so even an untrained one gives structure where embeddings have it;
    random embeddings have none, and what is left is chance.
    """
    found = []
    for number in range(n_draws):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed * 100_003 + number)
            table = torch.randn(features.shape[1], embedding)
            router = TaskRouter(
                n_layers=n_layers,
                n_experts=n_experts,
                task_embedding=embedding,
                hidden=hidden,
                selection="softmax",
                temperature=1.0,
            )
            routes = router(table).transpose(0, 1).numpy()
        found.append(np.abs(correlations(routes, features)).reshape(len(features), -1).max(axis=1))
    return np.array(found)


def feature_overlap(features: np.ndarray) -> np.ndarray:
    """Return Pearson's r of the features with each other: (F, F)."""
    return _standardized(features) @ _standardized(features).T


def route_report(
    routes: np.ndarray,
    task_types: Sequence[str],
    *,
    router: Mapping[str, int],
    n_permutations: int,
    n_untrained: int,
    seed: int,
) -> dict[str, Any]:
    """Return, by feature, the permutation test and the untrained control of one route table (T, L, m).

    Args:
        routes: noise-free routes of the tasks.
        task_types: the type of each task.
        router: ``embedding`` and ``hidden`` widths, for routers without training.
        n_permutations: shufflings.
        n_untrained: fresh routers.
        seed: of both.
    """
    present = [feature for feature in FEATURES if 1 < sum(kind == feature for kind in task_types) < len(task_types)]
    if not present:
        return {"features": {}, "overlap": []}
    features = feature_table(task_types, present)
    tested = permutation_test(routes, features, n_permutations=n_permutations, seed=seed)
    chance = untrained_correlations(
        features, n_layers=routes.shape[1], n_experts=routes.shape[2], n_draws=n_untrained, seed=seed, **router
    )
    told = {}
    for number, feature in enumerate(present):
        draws = chance[:, number]
        told[feature] = tested[number] | {
            "n_tasks": int(features[number].sum()),
            "untrained_mean": float(draws.mean()),
            "untrained_95": float(np.quantile(draws, 0.95)),
            "untrained_p_value": float((1 + (draws >= abs(tested[number]["r"])).sum()) / (1 + len(draws))),
        }
    return {
        "features": told,
        "overlap": np.round(feature_overlap(features), 4).tolist(),
        "correlations": np.round(correlations(routes, features), 4).tolist(),
    }


def _standardized(rows: np.ndarray) -> np.ndarray:
    """Return rows of mean zero and length one, so that a product of two is their correlation; constant ones are 0."""
    centered = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.where(length > 1e-6, centered / np.maximum(length, 1e-12), 0.0)
