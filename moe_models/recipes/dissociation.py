"""Do the experts that go with a feature matter for its tasks: knocking them out against matched random sets.

Letters in shapes: T task, L routed layer, m experts a layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from moe_models.task_moe import TaskMoeForConditionalGeneration

from .answering import forced
from .examples import Examples

Expert = tuple[int, int]


def strongest_experts(correlation: np.ndarray, *, n: int) -> list[Expert]:
    """Return the n (layer, expert) pairs of highest positive r (L, m); each layer keeps at least one expert."""
    n_layers, n_experts = correlation.shape
    chosen: list[Expert] = []
    for place in np.argsort(-correlation, axis=None, kind="stable"):
        layer, expert = divmod(int(place), n_experts)
        if len(chosen) == n or correlation[layer, expert] <= 0:
            break
        if sum(other == layer for other, _ in chosen) < n_experts - 1:
            chosen.append((layer, expert))
    return sorted(chosen)


def matched_sets(
    chosen: Sequence[Expert], *, n_layers: int, n_encoder_layers: int, n_experts: int, n: int, seed: int
) -> tuple[list[list[Expert]], str]:
    """Return random sets of experts to hold a chosen one against, none of them equal to it, and how they match it.

    Sets have as many experts in each layer as the chosen one; if there are fewer than n of those, layers may be
    others of the same stack.
    """
    counts = [sum(layer == other for other, _ in chosen) for layer in range(n_layers)]
    random = np.random.default_rng(seed)
    same_layers = [sorted(one) for one in _sets_of(counts, n_experts) if sorted(one) != sorted(chosen)]
    if len(same_layers) >= n:
        return [same_layers[k] for k in random.permutation(len(same_layers))[:n]], "layer and count"
    seen, found = {tuple(sorted(chosen))}, []
    for _ in range(200 * n):
        moved = [*random.permutation(counts[:n_encoder_layers]), *random.permutation(counts[n_encoder_layers:])]
        one = [
            (layer, int(expert))
            for layer, count in enumerate(moved)
            for expert in random.permutation(n_experts)[: int(count)]
        ]
        key = tuple(sorted(one))
        if key not in seen:
            seen.add(key)
            found.append(list(key))
        if len(found) == n:
            break
    return found, "stack and count"


def dissociation(
    model: TaskMoeForConditionalGeneration,
    examples: Examples,
    correlation: np.ndarray,
    has_feature: np.ndarray,
    *,
    n_experts_out: int,
    n_random: int,
    seed: int,
    others: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Return what disabling a feature's experts does to its tasks and to the rest, beside random sets.

    Args:
        model: in its own mode and temperature.
        examples: held-out ones.
        correlation: the feature's r with each expert (L, m).
        has_feature: which tasks have it (T), of bool.
        n_experts_out: experts to disable.
        n_random: matched random sets.
        seed: draws the sets.
        others: other features (T), to see what this knock-out does to their tasks.

    Returns:
        ``experts``; ``nll`` and ``exact``, each with ``with`` and ``without`` (mean change of tasks with the feature
        and without), ``specificity`` (the first less the second), the random sets' ``random_mean`` and ``random``
        specificities, and ``p_value``, the share of sets (this one counted) that are as specific; ``by_feature``, mean
        change of nll of each other feature's tasks.
    """
    chosen = strongest_experts(correlation, n=n_experts_out)
    if not chosen:
        return {"experts": []}
    sets, matched = matched_sets(
        chosen,
        n_layers=correlation.shape[0],
        n_encoder_layers=model.config.encoder_layers - len(model.config.encoder_unrouted_layers),
        n_experts=correlation.shape[1],
        n=n_random,
        seed=seed,
    )
    whole = _task_scores(model, examples, [])
    changes = [_task_scores(model, examples, one) - whole for one in (chosen, *sets)]
    told: dict[str, Any] = {"experts": [list(expert) for expert in chosen], "matched": matched, "n_random": len(sets)}
    for measure, name, sign in ((0, "nll", 1.0), (1, "exact", -1.0)):
        specific = [float(c[measure][has_feature].mean() - c[measure][~has_feature].mean()) for c in changes]
        as_specific = sum(sign * other >= sign * specific[0] for other in specific[1:])
        told[name] = {
            "with": float(changes[0][measure][has_feature].mean()),
            "without": float(changes[0][measure][~has_feature].mean()),
            "specificity": specific[0],
            "random_mean": float(np.mean(specific[1:])) if sets else 0.0,
            "random": [round(value, 5) for value in specific[1:]],
            "p_value": (1 + as_specific) / len(specific),
        }
    told["by_feature"] = {name: float(changes[0][0][mask].mean()) for name, mask in others.items()}
    return told


def _sets_of(counts: Sequence[int], n_experts: int) -> list[list[Expert]]:
    """Return all sets with so many experts in each layer."""
    each = [
        [[(layer, expert) for expert in some] for some in itertools.combinations(range(n_experts), count)]
        for layer, count in enumerate(counts)
    ]
    return [list(itertools.chain.from_iterable(parts)) for parts in itertools.product(*each)]


def _task_scores(model: TaskMoeForConditionalGeneration, examples: Examples, experts: Sequence[Expert]) -> np.ndarray:
    """Return each task's mean nll and exact match, (2, T), with these experts knocked out."""
    with model.knock_out(experts):
        found = forced(model, examples)
    tasks = range(len(examples.tasks))
    return np.array(
        [[float(values[found.task == task].mean()) for task in tasks] for values in (found.nll, found.exact)]
    )
